// Threads, a request and an error.
using System;
using System.Collections.Generic;
using System.Linq;
using System.Net;

static class Program {
    static void Main() {
        using (var cache = AmpToken.Open(new Dictionary<string, string> { { "timeout_ms", "10000" } })) {
            var tokens = Enumerable.Range(0, 100).AsParallel().Select(_ => cache.Token()).Distinct().ToList();
            Console.WriteLine("100 tasks: {0} token, {1} request", tokens.Count, cache.Stat("requests"));
            var request = WebRequest.CreateHttp(cache.ApiUrl + "/v2/content/hubs");
            request.Headers["Authorization"] = "Bearer " + cache.Token();
            using (var response = (HttpWebResponse)request.GetResponse())
                Console.WriteLine("GET /v2/content/hubs: {0}", (int)response.StatusCode);
        }
        try {
            using (var wrong = AmpToken.Open(new Dictionary<string, string> { { "client_secret", "wrong" } })) wrong.Token();
        } catch (AmpTokenException failure) {
            Console.WriteLine(failure.Status + ": " + failure.Message);
        }
    }
}
