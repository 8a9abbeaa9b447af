"""The settings of a cache, and the native config that is made from them."""

from __future__ import annotations

import _weakref
import ctypes
import os
import sys
from types import FunctionType

from . import _ffi, _logging
from ._calls import call, failure

TYPE_CHECKING = False
if TYPE_CHECKING:
    import inspect
    from typing import Any, Callable, Optional, Sequence, TypeVar, Union

    from typing_extensions import TypedDict

    PathText = Union[str, "os.PathLike[str]"]

    _Function = TypeVar("_Function", bound=Callable[..., Any])
else:

    class TypedDict:
        """Has annotations, which are all that is used of :class:`Settings`."""

        def __init_subclass__(cls, total):
            pass



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
_DEFAULTS: dict[str, Any] = {"load": True, "logger": True}


class _WithSettings:
    """What :func:`inspect.signature` and ``help()`` find in place of a function that takes ``**settings``."""

    def __init__(self, function: Any) -> None:
        # A copy, because the function itself refers to this object, and tools follow such references to the source.
        self.__wrapped__ = FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__
        )
        self.__wrapped__.__annotations__ = function.__annotations__

    @property
    def __signature__(self) -> inspect.Signature:
        """The parameters of the function, and the settings in place of ``**settings``."""
        # Not at the top: its import takes longer than that of this package.
        import inspect

        signature = inspect.signature(self.__wrapped__)
        parameters = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
        for name, annotation in Settings.__annotations__.items():
            parameters.append(
                inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=_DEFAULTS.get(name), annotation=annotation)
            )
        return signature.replace(parameters=parameters)


def shows_settings(function: _Function) -> _Function:
    """Makes ``help()`` and :func:`inspect.signature` list the settings in place of ``**settings``."""
    function.__wrapped__ = _WithSettings(function)  # type: ignore[attr-defined]
    return function


class NativeConfig:
    """A native config, and the log lines of everything that is made from it.

    It is freed with the last reference to this object.
    """

    __slots__ = ("pointer", "lines", "timeout", "__weakref__")

    pointer: Any
    lines: _logging.LogQueue | None
    timeout: float
    """The setting timeout_ms, in seconds."""

    def __init__(self, settings: dict[str, Any]) -> None:
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

    def _create(self, settings: dict[str, Any]) -> None:
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
        self.lines = None
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
            # Now, and not when the traceback is gone, which refers to this object.
            _ffi.lib_gil.amp_config_free(self.pointer)
            self.pointer = None
            raise
        if sink is not None:
            self.lines = _logging.LogQueue(self.pointer, sink)
            _logging_configs[id(self)] = _weakref.ref(self)

    def deliver(self) -> None:
        """Emits the log lines that native calls have left."""
        if self.lines is not None:
            self.lines.deliver()

    def __del__(self, exits: Callable[[], bool] = sys.is_finalizing) -> None:
        # Not at exit, when daemon threads may still use it: the config then lives as long as the process.
        if exits() or getattr(self, "pointer", None) is None:
            return
        if self.lines is not None:
            _logging_configs.pop(id(self), None)
            self.lines.leave()
        _ffi.lib_gil.amp_config_free(self.pointer)


# The configs with log lines, by id(), for those that are still there when the interpreter exits.
_logging_configs: dict[int, _weakref.ref[NativeConfig]] = {}


def _deliver_all() -> None:
    """Emits what background threads have logged since the last call. Runs before :mod:`logging` shuts down."""
    for reference in list(_logging_configs.values()):
        config = reference()
        if config is not None:
            config.deliver()
    _logging.deliver_left()


_logging.at_exit(_deliver_all)


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


def _set(config: Any, name: str, value: object) -> Exception | None:
    """Sets a setting of a native config. Returns the exception, because this frame has the value."""
    if value is None:
        return None
    encoded = _encode_setting(name, value)
    if isinstance(encoded, Exception):
        return encoded
    error = _ffi.Error()
    status = _ffi.lib_gil.amp_config_set(config, name.encode(), encoded, ctypes.byref(error))
    return failure(status, error) if status else None


def _encode_setting(name: str, value: object) -> bytes | Exception:
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
