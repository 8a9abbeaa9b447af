/* Lists the hubs that an API key has access to. libcurl sends the request,
 * libamp_token provides a valid token.
 *
 *     cc -std=c99 list_hubs.c -o list_hubs $(pkg-config --cflags --libs amp_token libcurl)
 *     AMPLIENCE_CLIENT_ID=… AMPLIENCE_CLIENT_SECRET=… ./list_hubs
 *
 * Prints the HTTP status and the response body. Exit status: 0 if the HTTP
 * status is 200; 1 if it is another one, there was no response, or the output
 * cannot be written; 2 if there was no token. */

#include <amp_token.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A long-running program keeps one cache for all its threads and requests. */
static amp_token_cache *cache_from_environment(void) {
    amp_error *error = NULL;
    amp_token_cache *cache = NULL;
    amp_config *config = amp_config_new();
    amp_status status = amp_config_load(config, &error);

    if (status == AMP_OK)
        status = amp_token_cache_new(config, &cache, &error);
    if (status != AMP_OK)
        fprintf(stderr, "cannot create the token cache: %s\n", amp_error_message(error));
    amp_error_free(error);
    amp_config_free(config);
    return cache;
}

/* Returns the full URL, which the caller frees, or NULL without memory. */
static char *url_of(const amp_token_cache *cache, const char *path) {
    const char *base = amp_token_cache_api_url(cache);
    size_t size = strlen(base) + strlen(path) + 1;
    char *url = malloc(size);

    if (url)
        snprintf(url, size, "%s%s", base, path);
    return url;
}

/* Each option is checked: if libcurl could not set the token, it would send the
 * request without one. */
static CURLcode prepare(CURL *curl, const char *url, const char *token, FILE *body) {
    const char *ca_file = getenv("AMPLIENCE_CA_FILE");
    CURLcode result = curl_easy_setopt(curl, CURLOPT_URL, url);

    /* libcurl writes the Authorization header. Redirects are not followed (the
     * default of libcurl), so that the token is sent to this host only. */
    if (result == CURLE_OK)
        result = curl_easy_setopt(curl, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
    if (result == CURLE_OK)
        result = curl_easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, token);
    if (result == CURLE_OK)
        result = curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    if (result == CURLE_OK)
        result = curl_easy_setopt(curl, CURLOPT_TIMEOUT, 30L);
    if (result == CURLE_OK)
        result = curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    if (result == CURLE_OK)
        result = curl_easy_setopt(curl, CURLOPT_WRITEDATA, body);
    if (result == CURLE_OK && ca_file && *ca_file)
        result = curl_easy_setopt(curl, CURLOPT_CAINFO, ca_file);
    return result;
}

/* Sends one request. Returns its HTTP status, or 0 without a response. */
static long request(CURL *curl, const char *url, const char *token, FILE *body) {
    long status = 0;
    CURLcode result;

    curl_easy_reset(curl);
    result = prepare(curl, url, token, body);
    if (result == CURLE_OK)
        result = curl_easy_perform(curl);
    if (result == CURLE_OK)
        result = curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    if (result != CURLE_OK) {
        fprintf(stderr, "no response from %s: %s\n", url, curl_easy_strerror(result));
        return 0;
    }
    return status;
}

/* Copies the response body to standard output. */
static void print_body(FILE *body) {
    int byte;

    rewind(body);
    while ((byte = getc(body)) != EOF)
        putchar(byte);
    putchar('\n');
}

/* Reports the response to the cache. Returns whether the API rejected the token
 * and there is another one to send the request with. */
static int is_token_replaced(const amp_token_cache *cache, const amp_token *token, long status, FILE *body) {
    char start[4096];
    size_t length;

    rewind(body);
    length = fread(start, 1, sizeof start, body);
    return amp_token_cache_report(cache, token, (int32_t)status, start, length);
}

/* Returns the exit status, 0, 1 or 2: see the top of this file. */
static int list_hubs(const amp_token_cache *cache, CURL *curl, const char *url) {
    int attempt;

    for (attempt = 1;; attempt++) {
        amp_error *error = NULL;
        amp_token *token = NULL;
        FILE *body = tmpfile();
        long status;

        if (!body) {
            perror("cannot create a temporary file");
            return 1;
        }
        if (amp_token_cache_get(cache, &token, &error) != AMP_OK) {
            fprintf(stderr, "cannot get a token: %s\n", amp_error_message(error));
            amp_error_free(error);
            fclose(body);
            return 2;
        }
        status = request(curl, url, amp_token_value(token), body);
        /* At most once: the response to the second request is the result. */
        if (attempt == 1 && is_token_replaced(cache, token, status, body)) {
            amp_token_free(token);
            fclose(body);
            continue;
        }
        amp_token_free(token);
        if (status != 0) {
            printf("HTTP %ld\n", status);
            print_body(body);
        }
        fclose(body);
        return status == 200 ? 0 : 1;
    }
}

int main(void) {
    int result = 2;
    amp_token_cache *cache = cache_from_environment();
    CURL *curl = curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK ? curl_easy_init() : NULL;
    char *url = cache ? url_of(cache, "/v2/content/hubs") : NULL;

    if (cache && curl && url)
        result = list_hubs(cache, curl, url);
    else if (cache)
        fputs(curl ? "out of memory\n" : "cannot initialize libcurl\n", stderr);
    if (fflush(stdout) == EOF || ferror(stdout)) {
        perror("cannot write to standard output");
        result = 1;
    }
    free(url);
    curl_easy_cleanup(curl);
    curl_global_cleanup();
    amp_token_cache_free(cache);
    return result;
}
