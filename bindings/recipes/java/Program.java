// A pool of threads, a request and an error.
import java.net.URI;
import java.net.http.*;
import java.util.Map;
import java.util.stream.*;

public final class Program {
    public static void main(String[] arguments) throws Exception {
        try (AmpToken cache = new AmpToken(Map.of("timeout_ms", "10000"))) {
            var tokens = IntStream.range(0, 100).parallel().mapToObj(i -> cache.token()).collect(Collectors.toSet());
            System.out.println("100 tasks: " + tokens.size() + " token, " + cache.stat("requests") + " request");
            var hubs = HttpRequest.newBuilder(URI.create(cache.apiUrl() + "/v2/content/hubs")).header("Authorization", "Bearer " + cache.token());
            var response = HttpClient.newHttpClient().send(hubs.build(), HttpResponse.BodyHandlers.ofString());
            System.out.println("GET /v2/content/hubs: " + response.statusCode());
        }
        try (AmpToken wrong = new AmpToken(Map.of("client_secret", "wrong"))) {
            wrong.token();
        } catch (AmpToken.Failure failure) {
            System.out.println(failure.status + ": " + failure.getMessage());
        }
    }
}
