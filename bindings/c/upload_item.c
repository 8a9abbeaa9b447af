/* Uploads a content item: libcurl makes the request, libamp_token gives it a
 * valid token, and this program repeats it where that is safe.
 *
 *     cc -std=c99 upload_item.c -o upload_item $(pkg-config --cflags --libs amp_token libcurl)
 *     AMPLIENCE_CLIENT_ID=… AMPLIENCE_CLIENT_SECRET=… ./upload_item REPOSITORY_ID item.json
 *
 * item.json is what the Content Management API takes: {"label": "…", "body":
 * {…}}. Prints what the API made of it. Exit status: 0 if the item was created;
 * 1 if the API refused, or did not answer; 2 if there was no token; 3 if the
 * file cannot be read or the arguments are wrong.
 *
 * A POST that is sent twice may make two items, so it is repeated only when
 * the API cannot have acted on it: no connection was made, the token was
 * refused, or there were too many requests (429). A connection that broke
 * later is reported instead. */

#define _POSIX_C_SOURCE 200809L /* nanosleep */

#include <amp_token.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ATTEMPTS = 5, LONGEST_PAUSE_S = 60 };

/* Bytes that grow. */
struct buffer {
    char *data;
    size_t length;
};

static int append(struct buffer *buffer, const void *data, size_t length) {
    char *longer = realloc(buffer->data, buffer->length + length + 1);

    if (!longer)
        return 0;
    memcpy(longer + buffer->length, data, length);
    buffer->data = longer;
    buffer->length += length;
    buffer->data[buffer->length] = '\0';
    return 1;
}

static size_t receive(char *data, size_t size, size_t count, void *buffer) {
    return append(buffer, data, size * count) ? size * count : 0;
}

static int read_file(const char *path, struct buffer *content) {
    char piece[4096];
    size_t length;
    FILE *file = fopen(path, "rb");
    int good;

    if (!file) {
        perror(path);
        return 0;
    }
    while ((length = fread(piece, 1, sizeof piece, file)) > 0)
        if (!append(content, piece, length))
            break;
    good = feof(file) && !ferror(file) && content->length > 0;
    if (!good)
        fprintf(stderr, "%s: cannot be read, or is empty\n", path);
    fclose(file);
    return good;
}

static amp_token_cache *cache_from_environment(void) {
    amp_error *error = NULL;
    amp_token_cache *cache = NULL;
    amp_config *config = amp_config_new();
    amp_status status = amp_config_load(config, &error);

    if (status == AMP_OK)
        status = amp_token_cache_new(config, &cache, &error);
    if (status != AMP_OK)
        fprintf(stderr, "no cache: %s\n", amp_error_message(error));
    amp_error_free(error);
    amp_config_free(config);
    return cache;
}

/* An id goes into a path: nothing that would change its meaning may be in it. */
static int is_id(const char *text) {
    return *text && text[strspn(text, "0123456789abcdefABCDEF-")] == '\0';
}

/* The whole URL, in memory that the caller frees. */
static char *url_of(const amp_token_cache *cache, const char *repository) {
    const char *base = amp_token_cache_api_url(cache);
    size_t room = strlen(base) + strlen(repository) + 64;
    char *url = malloc(room);

    if (url)
        snprintf(url, room, "%s/v2/content/content-repositories/%s/content-items", base, repository);
    return url;
}

/* Everything but the token. What libcurl cannot set would go unnoticed. */
static CURLcode prepare(CURL *curl, const char *url, const struct curl_slist *headers, const struct buffer *item) {
    const char *ca_file = getenv("AMPLIENCE_CA_FILE");
    CURLcode result = curl_easy_setopt(curl, CURLOPT_URL, url);

    /* No redirect is followed (its default), so that the token goes to this
     * host only. */
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

/* Waits as long as the server asked for, or else longer each time. */
static void pause_before(CURL *curl, int attempt) {
    curl_off_t asked = 0;
    struct timespec pause;

    pause.tv_sec = 0;
    pause.tv_nsec = 0;
    if (curl_easy_getinfo(curl, CURLINFO_RETRY_AFTER, &asked) == CURLE_OK && asked > 0)
        pause.tv_sec = asked < LONGEST_PAUSE_S ? (time_t)asked : LONGEST_PAUSE_S;
    else
        pause.tv_nsec = 50000000L << attempt; /* 0.1 to 0.8 s */
    while (nanosleep(&pause, &pause) != 0)
        ;
}

/* 0, 1 or 2: see the top. */
static int upload(const amp_token_cache *cache, CURL *curl) {
    int attempt, replaced = 0;

    for (attempt = 1;; attempt++) {
        int last = attempt == ATTEMPTS;
        long status = 0;
        struct buffer reply = {NULL, 0};
        amp_error *error = NULL;
        amp_token *token = NULL;
        CURLcode result;

        if (amp_token_cache_get(cache, &token, &error) != AMP_OK) {
            fprintf(stderr, "no token: %s\n", amp_error_message(error));
            amp_error_free(error);
            return 2;
        }
        result = curl_easy_setopt(curl, CURLOPT_XOAUTH2_BEARER, amp_token_value(token));
        if (result == CURLE_OK)
            result = curl_easy_setopt(curl, CURLOPT_WRITEDATA, &reply);
        if (result == CURLE_OK)
            result = curl_easy_perform(curl);
        if (result == CURLE_OK)
            result = curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);

        /* Refused: the token may have been revoked before its time, or (403)
         * have expired. Say so, and try the next, once. */
        if (result == CURLE_OK && (status == 401 || status == 403) && !replaced && !last) {
            replaced = 1;
            amp_token_cache_invalidate(cache, token);
            amp_token_free(token);
            free(reply.data);
            continue;
        }
        amp_token_free(token);

        if (!last && (result == CURLE_COULDNT_CONNECT || result == CURLE_COULDNT_RESOLVE_HOST ||
                      (result == CURLE_OK && status == 429))) {
            fprintf(stderr, "attempt %d: %s\n", attempt, result == CURLE_OK ? "HTTP 429" : curl_easy_strerror(result));
            free(reply.data);
            pause_before(curl, attempt);
            continue;
        }
        if (result != CURLE_OK)
            fprintf(stderr, "no reply: %s; the item may have been created or not\n", curl_easy_strerror(result));
        else if (status != 201)
            fprintf(stderr, "HTTP %ld: %s\n", status, reply.data ? reply.data : "");
        else
            puts(reply.data ? reply.data : "");
        free(reply.data);
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
        fprintf(stderr, "libcurl cannot do this: it must be 7.66 or later\n");
    else
        result = upload(cache, curl);

    amp_token_cache_free(cache);
    free(url);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    curl_global_cleanup();
    free(item.data);
    return result;
}
