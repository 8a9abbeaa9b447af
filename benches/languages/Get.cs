// Nanoseconds for a variable, a clock and a cached token: see run.py.
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Globalization;

static class Get {
    static string variable;
    static long used;

    static string Nanoseconds(int times, Func<long> work) {
        var least = double.MaxValue;
        for (int repeat = 0; repeat < 5; repeat++) {
            var watch = Stopwatch.StartNew();
            for (int i = 0; i < times; i++) used += work();
            least = Math.Min(least, watch.Elapsed.TotalMilliseconds * 1e6 / times);
        }
        return least.ToString("F1", CultureInfo.InvariantCulture);
    }

    static void Main() {
        using (var cache = AmpToken.Open(new Dictionary<string, string>())) {
            variable = cache.Token();
            Console.WriteLine(Nanoseconds(1000000, () => variable.Length) + " " + Nanoseconds(1000000, Stopwatch.GetTimestamp)
                + " " + Nanoseconds(100000, () => cache.Token().Length));
        }
    }
}
