"""The settings of a cache, and the native config that is made from them."""

from __future__ import annotations

import atexit
import ctypes
import inspect
import itertools
import os
import weakref
from typing import TYPE_CHECKING, Any, Callable, Dict, Optional, Sequence, TypeVar, Union

from . import _errors, _ffi, _logging
from ._calls import call

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
    client_id_file: Optional[PathText]
    credential_command: Union[str, Sequence[str], None]
    credentials_dir: Optional[PathText]
    profile: Optional[str]
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
    log_level: Optional[str]
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


class NativeConfig:
    """A native config, and the log lines of everything that is made from it.

    It is freed with the last reference to this object.
    """

    __slots__ = ("pointer", "lines", "timeout", "__weakref__")

    lines: Optional[_logging.LogQueue]
    timeout: float
    """The setting timeout_ms, in seconds."""

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
                raise TypeError(f"unexpected keyword argument {name!r}; {_suggestion(name)}")
        load = settings.pop("load", _DEFAULTS["load"])
        if not isinstance(load, bool):
            raise TypeError(f"load must be a bool, not {type(load).__name__}")
        logger = settings.pop("logger", _DEFAULTS["logger"])
        sink = _logging.sink_for(logger)
        if settings.get("log_level") is None and not (load and os.environ.get("AMPLIENCE_LOG_LEVEL")):
            settings["log_level"] = _logging.level_for(logger)
        self.timeout = _timeout(settings.get("timeout_ms"), load)
        self.pointer = _ffi.lib_gil.amp_config_new()
        try:
            for name in Settings.__annotations__:
                problem = _set(self.pointer, name, settings.get(name))
                if problem is not None:
                    raise problem
            if load:
                call(_ffi.lib_gil.amp_config_load, self.pointer)
            if sink is not None:
                call(_ffi.lib_gil.amp_config_queue_log_lines, self.pointer, _logging.CAPACITY)
        except BaseException:
            _ffi.lib_gil.amp_config_free(self.pointer)
            raise
        self.lines = None if sink is None else _logging.LogQueue(self.pointer, sink)
        # Not at exit, when daemon threads may still use it: the config then lives as long as the process.
        weakref.finalize(self, _free, self.pointer, self.lines).atexit = False
        if sink is not None:
            _logging_configs[next(_numbers)] = self

    def deliver(self) -> None:
        """Emits the log lines that native calls have left."""
        if self.lines is not None:
            self.lines.deliver()


def _free(pointer: Any, lines: Optional[_logging.LogQueue]) -> None:
    if lines is not None:
        lines.leave()
    _ffi.lib_gil.amp_config_free(pointer)


# The configs with log lines, for those that are still there when the interpreter exits.
_logging_configs: "weakref.WeakValueDictionary[int, NativeConfig]" = weakref.WeakValueDictionary()
_numbers = itertools.count()


def _deliver_all() -> None:
    """Emits what background threads have logged since the last call. Runs before :mod:`logging` shuts down."""
    for reference in _logging_configs.valuerefs():
        config = reference()
        if config is not None:
            config.deliver()
    _logging.deliver_left()


atexit.register(_deliver_all)


def _suggestion(name: str) -> str:
    import difflib  # only needed after a mistake

    close = difflib.get_close_matches(name, Settings.__annotations__, n=1)
    return f"did you mean {close[0]!r}?" if close else "help(amp_token.TokenCache) lists the settings"


def _timeout(setting: object, load: bool) -> float:
    """The time limit of a call in seconds. A value that the native library will reject counts as the default."""
    if setting is None and load:
        setting = os.environ.get("AMPLIENCE_TIMEOUT_MS")
    try:
        return int(str(setting)) / 1000
    except ValueError:
        return 30.0


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
    elif name == "credential_command" and isinstance(value, (list, tuple)):
        import json  # only needed for this

        if not all(isinstance(part, str) for part in value):
            return TypeError("credential_command must be a str or a list of str")
        text = json.dumps(value)
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
