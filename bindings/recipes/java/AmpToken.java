// Amplience access tokens in Java: the C interface by JNA (Debian: libjna-java) with direct mapping.
import com.sun.jna.*;
import com.sun.jna.ptr.*;
import java.nio.charset.StandardCharsets;
import java.util.Map;

/** The token of one set of credentials. All threads may share it. */
public final class AmpToken implements AutoCloseable {
    static final class Library {
        static {
            Native.register(NativeLibrary.getInstance("libamp_token.so.0", Map.of(com.sun.jna.Library.OPTION_STRING_ENCODING, "UTF-8")));
        }
        static native Pointer amp_config_new();
        static native int amp_config_set(Pointer config, String name, String value, PointerByReference error);
        static native int amp_config_load(Pointer config, PointerByReference error);
        static native void amp_config_free(Pointer config);
        static native int amp_token_cache_new(Pointer config, PointerByReference cache, PointerByReference error);
        static native int amp_token_cache_copy(Pointer cache, byte[] buffer, NativeLong capacity, NativeLongByReference length, PointerByReference error);
        static native String amp_token_cache_api_url(Pointer cache);
        static native long amp_token_cache_stat(Pointer cache, String name);
        static native void amp_token_cache_free(Pointer cache);
        static native String amp_status_name(int status);
        static native String amp_error_message(Pointer error);
        static native boolean amp_error_is_retryable(Pointer error);
        static native void amp_error_free(Pointer error);
    }

    /** Why a call failed. */
    public static final class Failure extends RuntimeException {
        public final String status; // the name, such as AMP_TIMEOUT
        public final boolean retryable;

        Failure(int status, Pointer error) {
            super(Library.amp_error_message(error));
            this.status = Library.amp_status_name(status);
            this.retryable = Library.amp_error_is_retryable(error);
            Library.amp_error_free(error);
        }
    }

    static void check(int status, PointerByReference error) {
        if (status != 0) throw new Failure(status, error.getValue());
    }

    final Pointer cache;

    /** The settings that are not given are read from the environment. */
    public AmpToken(Map<String, String> settings) {
        PointerByReference error = new PointerByReference(), created = new PointerByReference();
        Pointer config = Library.amp_config_new();
        try {
            settings.forEach((name, value) -> check(Library.amp_config_set(config, name, value, error), error));
            check(Library.amp_config_load(config, error), error);
            check(Library.amp_token_cache_new(config, created, error), error);
        } finally {
            Library.amp_config_free(config);
        }
        cache = created.getValue();
    }

    /** Returns a valid token. To be called for each request. */
    public String token() {
        byte[] buffer = new byte[4096];
        NativeLongByReference length = new NativeLongByReference();
        PointerByReference error = new PointerByReference();
        check(Library.amp_token_cache_copy(cache, buffer, new NativeLong(buffer.length), length, error), error);
        return new String(buffer, 0, length.getValue().intValue(), StandardCharsets.US_ASCII);
    }

    public String apiUrl() { return Library.amp_token_cache_api_url(cache); }
    public long stat(String name) { return Library.amp_token_cache_stat(cache, name); }

    /** Frees the cache, which no thread may use any more. */
    @Override public void close() { Library.amp_token_cache_free(cache); }
}
