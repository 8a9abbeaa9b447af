"""The settings of a cache, and the native config that is made from them."""

from __future__ import annotations

import ctypes
import inspect
import os
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, TypeVar, Union

from . import _errors, _ffi, _logging

if TYPE_CHECKING:
    from typing_extensions import TypedDict
else:
    from typing import TypedDict

PathText = Union[str, "os.PathLike[str]"]

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Settings(TypedDict, total=False):
    """The keyword arguments of :class:`TokenCache`, :func:`get_token` and :class:`Session`.

    The docstring of :class:`TokenCache` describes each of them.
    """

    client_id: Optional[str]
    client_secret: Optional[str]
    client_secret_file: Optional[PathText]
    personal_access_token: Optional[str]
    personal_access_token_file: Optional[PathText]
    config_file: Optional[PathText]
    auth_url: Optional[str]
    api_url: Optional[str]
    timeout_ms: Union[int, str, None]
    connect_timeout_ms: Union[int, str, None]
    retries: Union[int, str, None]
    ca_file: Optional[PathText]
    client_certificate: Optional[PathText]
    client_key: Optional[PathText]
    proxy: Optional[str]
    min_validity_ms: Union[int, str, None]
    background_refresh: Union[bool, str, None]
    max_response_bytes: Union[int, str, None]
    store: Optional[str]
    store_dir: Optional[PathText]
    user_agent: Optional[str]
    load: bool
    logger: _logging.LoggerArgument


# The keyword arguments that are not settings of the native library. The others are None by default.
_DEFAULTS: Dict[str, Any] = {"load": True, "logger": True}


def shows_settings(function: _Function) -> _Function:
    """Makes ``help()`` and :func:`inspect.signature` list the settings in place of ``**settings``."""
    signature = inspect.signature(function)
    parameters = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    for name, annotation in Settings.__annotations__.items():
        # On Python 3.9 to 3.13 a TypedDict keeps an annotation as a ForwardRef of its text.
        text = getattr(annotation, "__forward_arg__", annotation)
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS.get(name), annotation=text)
        )
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function


def call(function: Any, *arguments: Any) -> None:
    """Calls a native function whose last parameter is the error, and raises that error."""
    error = _ffi.error_p()
    status = function(*arguments, ctypes.byref(error))
    if status:
        raise _errors.from_native(status, error)


class NativeConfig:
    """A native config, and the sink for the log lines of everything that is made from it."""

    __slots__ = ("pointer", "sink", "background")

    def __init__(self, settings: Dict[str, Any]) -> None:
        """Takes over the keyword arguments in ``settings``, and empties the dict, also after a failure.

        Error reporters print the local variables of each frame of a traceback. So no frame that raises,
        and none of its callers here, may have a secret in a local variable.

        :raises TypeError: an argument is not a setting, or its value has the wrong type
        :raises ValueError: a value cannot be passed to C
        :raises AmpError: the native library rejects a value
        """
        try:
            self._create(settings)
        finally:
            settings.clear()

    def _create(self, settings: Dict[str, Any]) -> None:
        for name in settings:
            if name not in Settings.__annotations__:
                raise TypeError(f"unexpected keyword argument {name!r}; help(amp_token.TokenCache) lists the settings")
        load = settings.pop("load", _DEFAULTS["load"])
        self.background = _refreshes_in_background(settings.get("background_refresh"), load)
        self.sink = _logging.add_sink(settings.pop("logger", _DEFAULTS["logger"]))
        self.pointer = _ffi.lib_nogil.amp_config_new()
        try:
            for name in Settings.__annotations__:
                problem = _set(self.pointer, name, settings.get(name))
                if problem is not None:
                    raise problem
            if load:
                call(_ffi.lib_gil.amp_config_load, self.pointer)
            if self.sink is not None:
                call(_ffi.lib_gil.amp_config_set_logger, self.pointer, _logging.native_callback, self.sink)
        except BaseException:
            if self.sink is not None:
                _logging.remove_sink(self.sink)
            _ffi.lib_gil.amp_config_free(self.pointer)
            raise
        if self.sink is not None:
            _logging.track_config(self.sink, self.pointer)

    def free(self) -> None:
        """Frees the native config. The caller makes sure that nothing logs through it any more."""
        if self.sink is not None:
            _logging.remove_sink(self.sink)
            if not _logging.untrack_config(self.sink):
                return
        _ffi.lib_gil.amp_config_free(self.pointer)


def _refreshes_in_background(setting: Union[bool, str, None], load: bool) -> bool:
    """Whether a cache with this setting may have a background thread."""
    if setting is None:
        return load and bool(os.environ.get("AMPLIENCE_BACKGROUND_REFRESH"))
    return setting not in (False, "false")


def _set(config: Any, name: str, value: object) -> Optional[Exception]:
    """Sets a setting of a native config. Returns the exception, because this frame has the value."""
    if value is None:
        return None
    encoded = _encode_setting(name, value)
    if isinstance(encoded, Exception):
        return encoded
    error = _ffi.error_p()
    status = _ffi.lib_gil.amp_config_set(config, name.encode(), encoded, ctypes.byref(error))
    return _errors.from_native(status, error) if status else None


def _encode_setting(name: str, value: object) -> Union[bytes, Exception]:
    """The string that the native library takes for a setting's value, or the exception to raise."""
    if isinstance(value, bool):
        text = "true" if value else "false"
    elif isinstance(value, int):
        text = str(value)
    elif isinstance(value, (str, os.PathLike)):
        text = os.fsdecode(value)
    else:
        # The message does not show the value: it may be a secret of an unexpected type.
        return TypeError(f"{name} must be a str, a path, an int or a bool, not {type(value).__name__}")
    if "\0" in text:
        return ValueError(f"{name} contains a NUL character")
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError:
        # The UnicodeEncodeError would show the value.
        return ValueError(f"{name} contains a lone surrogate, which cannot be encoded as UTF-8")
