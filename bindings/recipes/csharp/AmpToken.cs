// Amplience access tokens in C#: the C interface by P/Invoke, in Mono and in .NET.
using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Text;

public sealed class AmpTokenException : Exception {
    public readonly string Status; // the name, such as AMP_TIMEOUT
    public readonly bool Retryable;
    internal AmpTokenException(int status, IntPtr error) : base(Native.Text(Native.amp_error_message(error))) {
        Status = Native.Text(Native.amp_status_name(status));
        Retryable = Native.amp_error_is_retryable(error) != 0;
        Native.amp_error_free(error);
    }
}

static class Native {
    const string Library = "libamp_token.so.0";
    [DllImport(Library)] internal static extern IntPtr amp_config_new();
    [DllImport(Library)] internal static extern int amp_config_set(IntPtr config, byte[] name, byte[] value, out IntPtr error);
    [DllImport(Library)] internal static extern int amp_config_load(IntPtr config, out IntPtr error);
    [DllImport(Library)] internal static extern void amp_config_free(IntPtr config);
    [DllImport(Library)] internal static extern int amp_token_cache_new(IntPtr config, out AmpToken cache, out IntPtr error);
    [DllImport(Library)] internal static extern int amp_token_cache_copy(AmpToken cache, byte[] buffer, UIntPtr capacity, out UIntPtr length, out IntPtr error);
    [DllImport(Library)] internal static extern IntPtr amp_token_cache_api_url(AmpToken cache);
    [DllImport(Library)] internal static extern long amp_token_cache_stat(AmpToken cache, byte[] name);
    [DllImport(Library)] internal static extern void amp_token_cache_free(IntPtr cache);
    [DllImport(Library)] internal static extern IntPtr amp_status_name(int status);
    [DllImport(Library)] internal static extern IntPtr amp_error_message(IntPtr error);
    [DllImport(Library)] internal static extern int amp_error_is_retryable(IntPtr error); // a bool of the library fills an int
    [DllImport(Library)] internal static extern void amp_error_free(IntPtr error);

    internal static byte[] Utf8(string text) { return Encoding.UTF8.GetBytes(text + "\0"); }
    internal static string Text(IntPtr text) {
        int length = 0;
        while (Marshal.ReadByte(text, length) != 0) length++;
        var bytes = new byte[length];
        Marshal.Copy(text, bytes, 0, length);
        return Encoding.UTF8.GetString(bytes);
    }
    internal static void Check(int status, IntPtr error) { if (status != 0) throw new AmpTokenException(status, error); }
}

// The token of one set of credentials. All threads may share it. A call keeps the handle until it returns.
public sealed class AmpToken : SafeHandle {
    AmpToken() : base(IntPtr.Zero, true) { }
    public override bool IsInvalid { get { return handle == IntPtr.Zero; } }
    protected override bool ReleaseHandle() { Native.amp_token_cache_free(handle); return true; }

    public static AmpToken Open(IDictionary<string, string> settings) { // the others are read from the environment
        IntPtr error, config = Native.amp_config_new();
        try {
            foreach (var setting in settings) Native.Check(Native.amp_config_set(config, Native.Utf8(setting.Key), Native.Utf8(setting.Value), out error), error);
            Native.Check(Native.amp_config_load(config, out error), error);
            Native.Check(Native.amp_token_cache_new(config, out AmpToken cache, out error), error);
            return cache;
        } finally { Native.amp_config_free(config); }
    }

    public string Token() { // to be called for each request
        var buffer = new byte[4096];
        Native.Check(Native.amp_token_cache_copy(this, buffer, (UIntPtr)buffer.Length, out UIntPtr length, out IntPtr error), error);
        return Encoding.ASCII.GetString(buffer, 0, (int)length);
    }

    public string ApiUrl { get { return Native.Text(Native.amp_token_cache_api_url(this)); } }
    public long Stat(string name) { return Native.amp_token_cache_stat(this, Native.Utf8(name)); }
}
