// The conformance runner of the Java recipe: ../README.md describes the commands and answers.
import com.sun.jna.*;
import com.sun.jna.ptr.*;
import java.io.*;
import java.nio.charset.StandardCharsets;
import java.util.*;
import java.util.concurrent.*;
import java.util.stream.*;

public final class Runner {
    static {
        Native.register(NativeLibrary.getInstance("libamp_token.so.0"));
    }
    static native int amp_token_cache_get(Pointer cache, PointerByReference token, PointerByReference error);
    static native int amp_token_cache_get_for(Pointer cache, long milliseconds, PointerByReference token, PointerByReference error);
    static native boolean amp_token_cache_report(Pointer cache, Pointer token, int status, byte[] body, NativeLong length);
    static native void amp_token_cache_invalidate(Pointer cache, Pointer token);
    static native String amp_token_value(Pointer token);
    static native long amp_token_expires_in(Pointer token);
    static native void amp_token_free(Pointer token);
    static native String amp_status_name(int status);
    static native int amp_error_http_status(Pointer error);
    static native boolean amp_error_is_retryable(Pointer error);
    static native long amp_error_retry_after_ms(Pointer error);
    static native String amp_error_oauth_code(Pointer error);
    static native void amp_error_free(Pointer error);

    private AmpToken cache;
    private Pointer token;
    private Future<Outcome> started;
    private final ExecutorService threads = Executors.newCachedThreadPool(task -> {
        Thread thread = new Thread(task);
        thread.setDaemon(true);
        return thread;
    });

    private record Outcome(int status, Pointer token, Pointer error) {}

    private Outcome get(String milliseconds) {
        PointerByReference result = new PointerByReference(), error = new PointerByReference();
        Pointer handle = cache == null ? null : cache.cache;
        int status = milliseconds.isEmpty()
            ? amp_token_cache_get(handle, result, error)
            : amp_token_cache_get_for(handle, Long.parseLong(milliseconds), result, error);
        return new Outcome(status, result.getValue(), error.getValue());
    }

    private String answer(Outcome outcome) {
        if (outcome.status == 0) {
            amp_token_free(token);
            token = outcome.token;
            return "AMP_OK " + amp_token_value(token);
        }
        Pointer error = outcome.error;
        String code = amp_error_oauth_code(error);
        String words = amp_status_name(outcome.status) + " " + amp_error_http_status(error) + " " + amp_error_is_retryable(error)
            + " " + amp_error_retry_after_ms(error) + " " + (code == null ? "-" : code);
        amp_error_free(error);
        return words;
    }

    private String open(String settings) {
        try {
            cache = new AmpToken(Arrays.stream(settings.split(" ")).filter(one -> !one.isEmpty())
                .map(one -> one.split("=", 2)).collect(Collectors.toMap(pair -> pair[0], pair -> pair[1])));
            return "AMP_OK";
        } catch (AmpToken.Failure failure) {
            return failure.status + " 0 " + failure.retryable + " -1 -";
        }
    }

    private String inThreads(int count) throws Exception {
        List<Future<Outcome>> calls = new ArrayList<>();
        for (int i = 0; i < count; i++) calls.add(threads.submit(() -> get("")));
        Set<String> distinct = new HashSet<>();
        String failure = null;
        for (Future<Outcome> call : calls) {
            String answer = answer(call.get());
            distinct.add(answer);
            if (!answer.startsWith("AMP_OK ")) failure = answer;
        }
        return failure == null ? "AMP_OK " + distinct.size() : failure;
    }

    private String run(String command, String rest) throws Exception {
        switch (command) {
            case "open": return open(rest);
            case "get": return answer(get(rest));
            case "threads": return inThreads(Integer.parseInt(rest));
            case "start":
                started = threads.submit(() -> get(""));
                return "AMP_OK";
            case "join":
                Outcome outcome = started.get();
                started = null;
                return answer(outcome);
            case "token": return "AMP_OK " + amp_token_value(token);
            case "expires_in": return Long.toString(amp_token_expires_in(token));
            case "report":
                String[] words = rest.split(" ", 2);
                byte[] body = (words.length < 2 ? "" : words[1]).getBytes(StandardCharsets.UTF_8);
                return Boolean.toString(amp_token_cache_report(cache.cache, token, Integer.parseInt(words[0]), body, new NativeLong(body.length)));
            case "invalidate":
                amp_token_cache_invalidate(cache.cache, token);
                return "AMP_OK";
            case "stat": return Long.toString(cache.stat(rest));
            case "close":
                if (started != null) return "unsupported"; // a cache must not be freed while it is in use
                cache.close();
                cache = null;
                return "AMP_OK";
            default: return "unsupported"; // Java cannot fork
        }
    }

    public static void main(String[] arguments) throws Exception {
        Runner runner = new Runner();
        BufferedReader input = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line; (line = input.readLine()) != null; ) {
            String[] words = line.split(" ", 2);
            System.out.println(runner.run(words[0], words.length < 2 ? "" : words[1]));
        }
    }
}
