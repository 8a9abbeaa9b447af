/* Uploads a content item. libcurl sends the request, libamp_token provides a
 * valid token, and this program retries the request where that is safe.
 *
 *     cc -std=c99 upload_item.c -o upload_item $(pkg-config --cflags --libs amp_token libcurl)
 *     AMPLIENCE_CLIENT_ID=… AMPLIENCE_CLIENT_SECRET=… ./upload_item REPOSITORY_ID item.json
 *
 * item.json has the format of the Content Management API: {"label": "…",
 * "body": {…}}. Prints the item that the API created. Exit status: 0 if the
 * item was created; 1 if the API rejected it, or there was no response; 2 if
 * there was no token; 3 if the file cannot be read, the output cannot be
 * written, or the arguments are wrong.
 *
 * A POST that is sent twice may create two items. So it is only retried if the
 * API cannot have acted on it: no connection was made, the token was rejected,
 * or the rate of requests was too high (429). A connection that was lost later
 * is reported instead. */

#define _POSIX_C_SOURCE 200809L /* nanosleep */

#include <amp_token.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ATTEMPTS = 5, MAX_BACKOFF_S = 60 };

/* A buffer that grows. `data` has a NUL after its last byte. */
struct buffer {
    char *data;
    size_t length;
};

static int append(struct buffer *buffer, const void *data, size_t length) {
    char *grown = realloc(buffer->data, buffer->length + length + 1);

    if (!grown)
        return 0;
    memcpy(grown + buffer->length, data, length);
    buffer->data = grown;
    buffer->length += length;
    buffer->data[buffer->length] = '\0';
    return 1;
}

static size_t receive(char *data, size_t size, size_t count, void *buffer) {
    return append(buffer, data, size * count) ? size * count : 0;
}

static int read_file(const char *path, struct buffer *content) {
    char chunk[4096];
    size_t length;
    FILE *file = fopen(path, "rb");
    int ok;

    if (!file) {
        perror(path);
        return 0;
    }
    while ((length = fread(chunk, 1, sizeof chunk, file)) > 0)
        if (!append(content, chunk, length))
            break;
    ok = feof(file) && !ferror(file) && content->length > 0;
    if (!ok)
        fprintf(stderr, "%s: the file is empty, or cannot be read\n", path);
    fclose(file);
    return ok;
}

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

/* The id becomes part of a path, so it must not contain a character that has a
 * meaning there. */
static int is_id(const char *id) {
    return *id && id[strspn(id, "0123456789abcdefABCDEF-")] == '\0';
}

/* Returns the full URL, which the caller frees, or NULL without memory. */
static char *url_of(const amp_token_cache *cache, const char *repository) {
    const char *base = amp_token_cache_api_url(cache);
    size_t size = strlen(base) + strlen(repository) + 64;
    char *url = malloc(size);

    if (url)
        snprintf(url, size, "%s/v2/content/content-repositories/%s/content-items", base, repository);
    return url;
}

/* Sets all options except the token. Each is checked: if libcurl could not set
 * one, it would send the request without it. */
static CURLcode prepare(CURL *curl, const char *url, const struct curl_slist *headers, const struct buffer *item) {
    const char *ca_file = getenv("AMPLIENCE_CA_FILE");
    CURLcode result = curl_easy_setopt(curl, CURLOPT_URL, url);

    /* Redirects are not followed (the default of libcurl), so that the token
     * is sent to this host only. */
    if (result == CURLE_OK)
        result = curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
    if (result == CURLE_OK)
        result = curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
    if (result == CURLE_OK)
        result = curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)item->length);
    if (result == CURLE_OK)
        result = curl_easy_setopt(curl, CURLOPT_POSTFIELDS, item->data);
    if (result == CURLE_OK)
        result = curl_easy_setopt(curl, CURLOPT_HTTPAUTH, CURLAUTH_BEARER);
    if (result == CURLE_OK)
        result = curl_easy_setopt(curl, CURLOPT_TIMEOUT, 30L);
    if (result == CURLE_OK)
        result = curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
    if (result == CURLE_OK)
        result = curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, receive);
    if (result == CURLE_OK && ca_file && *ca_file)
        result = curl_easy_setopt(curl, CURLOPT_CAINFO, ca_file);
    return result;
}

/* Waits before the next attempt: for Retry-After, and otherwise twice as long
 * as the last time. */
static void back_off(CURL *curl, int attempt) {
    curl_off_t retry_after = 0;
    struct timespec delay;

    delay.tv_sec = 0;
    delay.tv_nsec = 0;
    if (curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &retry_after) == CURLE_OK && retry_after > 0)
        delay.tv_sec = retry_after < MAX_BACKOFF_S ? (time_t)retry_after : MAX_BACKOFF_S;
    else
        delay.tv_nsec = 50000000L << attempt; /* 0.1 to 0.8 s */
    while (nanosleep(&delay, &delay) != 0)
        ;
}

/* Returns the exit status, 0, 1 or 2: see the top of this file. */
static int upload(const amp_token_cache *cache, CURL *curl) {
    int attempt, replaced = 0;

    for (attempt = 1;; attempt++) {
        int last = attempt == ATTEMPTS;
        long status = 0;
        struct buffer response = {NULL, 0};
        amp_error *error = NULL;
        amp_token *token = NULL;
        CURLcode result;

        if (amp_token_cache_get(cache, &token, &error) != AMP_OK) {
            fprintf(stderr, "cannot get a token: %s\n", amp_error_message(error));
            amp_error_free(error);
            return 2;
        }
        result = curl_easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, amp_token_value(token));
        if (result == CURLE_OK)
            result = curl_easy_setopt(curl, CURLOPT_WRITEDATA, &response);
        if (result == CURLE_OK)
            result = curl_easy_perform(curl);
        if (result == CURLE_OK)
            result = curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);

        /* If the API rejected the token, and the cache has another one, the
         * request is sent again, once. A missing permission is no reason to
         * replace the token: the cache tells the two apart. */
        if (result == CURLE_OK && !replaced && !last &&
            amp_token_cache_report(cache, token, (int32_t)status, response.data, response.length)) {
            replaced = 1;
            amp_token_free(token);
            free(response.data);
            continue;
        }
        amp_token_free(token);

        if (!last && (result == CURLE_COULDNT_CONNECT || result == CURLE_COULDNT_RESOLVE_HOST ||
                      (result == CURLE_OK && status == 429))) {
            fprintf(stderr, "attempt %d: %s\n", attempt, result == CURLE_OK ? "HTTP 429" : curl_easy_strerror(result));
            free(response.data);
            back_off(curl, attempt);
            continue;
        }
        if (result != CURLE_OK)
            fprintf(stderr, "no response: %s; the item may have been created\n", curl_easy_strerror(result));
        else if (status != 201)
            fprintf(stderr, "HTTP %ld: %s\n", status, response.data ? response.data : "");
        else
            puts(response.data ? response.data : "");
        free(response.data);
        return result == CURLE_OK && status == 201 ? 0 : 1;
    }
}

int main(int argc, char **argv) {
    int result = 3;
    char *url = NULL;
    CURL *curl = NULL;
    amp_token_cache *cache = NULL;
    struct curl_slist *headers = NULL;
    struct buffer item = {NULL, 0};

    if (argc != 3 || !is_id(argv[1])) {
        fprintf(stderr, "usage: upload_item REPOSITORY_ID FILE\n");
        return 3;
    }
    if (!read_file(argv[2], &item)) {
        free(item.data);
        return 3;
    }
    if (curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK)
        curl = curl_easy_init();
    headers = curl_slist_append(NULL, "Content-Type: application/json");
    cache = cache_from_environment();
    url = cache ? url_of(cache, argv[1]) : NULL;
    if (!cache)
        result = 2;
    else if (!curl || !headers || !url || prepare(curl, url, headers, &item) != CURLE_OK)
        fprintf(stderr, "cannot set up the request: libcurl must be 7.66 or later\n");
    else
        result = upload(cache, curl);
    if (fflush(stdout) == EOF || ferror(stdout)) {
        perror("the item was created, but cannot be written to standard output");
        result = 3;
    }

    amp_token_cache_free(cache);
    free(url);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    curl_global_cleanup();
    free(item.data);
    return result;
}
