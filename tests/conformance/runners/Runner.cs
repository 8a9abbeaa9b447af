// The conformance runner of the C# recipe: ../README.md describes the commands and answers.
using System;
using System.Collections.Generic;
using System.Linq;
using System.Runtime.InteropServices;
using System.Text;
using System.Threading;

static class Runner {
    const string Library = "libamp_token.so.0";
    [DllImport(Library)] static extern int amp_token_cache_get(AmpToken cache, out IntPtr token, out IntPtr error);
    [DllImport(Library)] static extern int amp_token_cache_get_for(AmpToken cache, long milliseconds, out IntPtr token, out IntPtr error);
    [DllImport(Library)] static extern int amp_token_cache_report(AmpToken cache, IntPtr token, int status, byte[] body, UIntPtr length);
    [DllImport(Library)] static extern void amp_token_cache_invalidate(AmpToken cache, IntPtr token);
    [DllImport(Library)] static extern IntPtr amp_token_value(IntPtr token);
    [DllImport(Library)] static extern long amp_token_expires_in(IntPtr token);
    [DllImport(Library)] static extern void amp_token_free(IntPtr token);
    [DllImport(Library)] static extern int amp_error_http_status(IntPtr error);
    [DllImport(Library)] static extern long amp_error_retry_after_ms(IntPtr error);
    [DllImport(Library)] static extern IntPtr amp_error_oauth_code(IntPtr error);

    static AmpToken cache;
    static IntPtr token;
    static Call started;
    static bool waitsLong;

    class Call {
        int status;
        IntPtr result, error;
        bool isClosed;
        Thread thread;

        // A SafeHandle that is used after it was disposed of is an exception of .NET.
        public Call Run(string milliseconds) {
            try {
                if (cache == null) throw new ObjectDisposedException("cache");
                status = milliseconds == ""
                    ? amp_token_cache_get(cache, out result, out error)
                    : amp_token_cache_get_for(cache, long.Parse(milliseconds), out result, out error);
            } catch (ObjectDisposedException) {
                isClosed = true;
            }
            return this;
        }

        public Call Start() {
            thread = new Thread(() => Run("")) { IsBackground = true };
            thread.Start();
            return this;
        }

        public Call Join() {
            thread.Join();
            return this;
        }

        public string Answer() {
            if (isClosed) return "AMP_INVALID_ARGUMENT 0 false -1 -";
            if (status == 0) {
                amp_token_free(token);
                token = result;
                return "AMP_OK " + Native.Text(amp_token_value(token));
            }
            var code = amp_error_oauth_code(error);
            var words = string.Join(" ", Native.Text(Native.amp_status_name(status)), amp_error_http_status(error),
                Native.amp_error_is_retryable(error) != 0 ? "true" : "false", amp_error_retry_after_ms(error), code == IntPtr.Zero ? "-" : Native.Text(code));
            Native.amp_error_free(error);
            return words;
        }
    }

    static string Open(string settings) {
        waitsLong = settings.Contains("timeout_ms=600000");
        try {
            cache = AmpToken.Open(settings.Split(new[] { ' ' }, StringSplitOptions.RemoveEmptyEntries).Select(one => one.Split(new[] { '=' }, 2)).ToDictionary(pair => pair[0], pair => pair[1]));
            return "AMP_OK";
        } catch (AmpTokenException failure) {
            return failure.Status + " 0 " + (failure.Retryable ? "true" : "false") + " -1 -";
        }
    }

    static string InThreads(int count) {
        var calls = Enumerable.Range(0, count).Select(_ => new Call().Start()).ToList();
        var answers = calls.Select(call => call.Join().Answer()).Distinct().ToList();
        return answers.FirstOrDefault(answer => !answer.StartsWith("AMP_OK ")) ?? "AMP_OK " + answers.Count;
    }

    static string Run(string command, string rest) {
        switch (command) {
            case "open": return Open(rest);
            case "get": return new Call().Run(rest).Answer();
            case "threads": return InThreads(int.Parse(rest));
            case "start":
                if (waitsLong) return "unsupported"; // Mono ends only when a call has returned
                started = new Call().Start();
                return "AMP_OK";
            case "join": return started.Join().Answer();
            case "token": return "AMP_OK " + Native.Text(amp_token_value(token));
            case "expires_in": return amp_token_expires_in(token).ToString();
            case "report":
                var words = rest.Split(new[] { ' ' }, 2);
                var body = Encoding.UTF8.GetBytes(words.Length < 2 ? "" : words[1]);
                return amp_token_cache_report(cache, token, int.Parse(words[0]), body, (UIntPtr)body.Length) != 0 ? "true" : "false";
            case "invalidate":
                amp_token_cache_invalidate(cache, token);
                return "AMP_OK";
            case "stat": return cache.Stat(rest).ToString();
            case "close": // a call that is running keeps the handle
                cache.Dispose();
                return "AMP_OK";
            default: return "unsupported"; // .NET cannot fork
        }
    }

    static void Main() {
        for (string line; (line = Console.ReadLine()) != null;) {
            var words = line.Split(new[] { ' ' }, 2);
            Console.WriteLine(Run(words[0], words.Length < 2 ? "" : words[1]));
            Console.Out.Flush();
        }
    }
}
