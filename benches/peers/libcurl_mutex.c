/* A cache written by hand in C: libcurl, a struct with the token and its expiry, and a mutex. */

#include <stdbool.h>

#include <curl/curl.h>

#include "peer.h"

struct cache {
    pthread_mutex_t lock;
    char token[TOKEN_CAPACITY];
    size_t length;
    double expires;
};

struct response {
    char text[2 * TOKEN_CAPACITY];
    size_t length;
};

static size_t receive(char *data, size_t size, size_t count, void *user_data) {
    struct response *response = user_data;
    size_t more = size * count;
    if (more >= sizeof response->text - response->length)
        return 0;
    memcpy(response->text + response->length, data, more);
    response->length += more;
    response->text[response->length] = '\0';
    return more;
}

static void *peer_open(void) {
    struct cache *cache = calloc(1, sizeof *cache);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    pthread_mutex_init(&cache->lock, NULL);
    return cache;
}

/* Requests a token, with the lock held. */
static void refresh(struct cache *cache) {
    char url[512], body[1024];
    struct response response = {.length = 0};
    CURL *curl = curl_easy_init();
    char *id = curl_easy_escape(curl, getenv("CLIENT_ID"), 0);
    char *secret = curl_easy_escape(curl, getenv("CLIENT_SECRET"), 0);
    snprintf(url, sizeof url, "%s/oauth/token", getenv("AUTH_URL"));
    snprintf(body, sizeof body, "grant_type=client_credentials&client_id=%s&client_secret=%s", id, secret);
    curl_easy_setopt(curl, CURLOPT_URL, url);
    curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, receive);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, &response);
    curl_easy_setopt(curl, CURLOPT_FAILONERROR, 1L);
    if (getenv("CA_FILE") != NULL)
        curl_easy_setopt(curl, CURLOPT_CAINFO, getenv("CA_FILE"));
    double now = peer_seconds();
    CURLcode code = curl_easy_perform(curl);
    const char *token = strstr(response.text, "\"access_token\":\"");
    const char *lifetime = strstr(response.text, "\"expires_in\":");
    if (code != CURLE_OK || token == NULL || lifetime == NULL) {
        fprintf(stderr, "libcurl: %s\n", curl_easy_strerror(code));
        exit(1);
    }
    token += strlen("\"access_token\":\"");
    cache->length = strcspn(token, "\"");
    memcpy(cache->token, token, cache->length);
    cache->token[cache->length] = '\0';
    cache->expires = now + atof(lifetime + strlen("\"expires_in\":")) - 30;
    curl_free(id);
    curl_free(secret);
    curl_easy_cleanup(curl);
}

static void peer_text(void *argument, char *buffer) {
    struct cache *cache = argument;
    pthread_mutex_lock(&cache->lock);
    if (peer_seconds() >= cache->expires)
        refresh(cache);
    memcpy(buffer, cache->token, cache->length + 1);
    pthread_mutex_unlock(&cache->lock);
}

static void peer_get(void *cache, char *buffer) {
    peer_text(cache, buffer);
}
