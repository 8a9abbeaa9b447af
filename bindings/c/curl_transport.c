/* Sends the library's requests through libcurl, which supports what the
 * library's own HTTP client does not: proxies that require Negotiate
 * (Kerberos), NTLM or Digest.
 *
 *     cc -std=c99 curl_transport.c -o curl_transport $(pkg-config --cflags --libs amp_token libcurl)
 *     HTTPS_PROXY=http://user:password@proxy:3128 AMPLIENCE_CLIENT_ID=… AMPLIENCE_CLIENT_SECRET=… ./curl_transport
 *
 * Copy send_with_curl() into your program. libcurl reads HTTPS_PROXY and
 * NO_PROXY itself. Without a user name in the proxy's URL it uses the Kerberos
 * ticket of the current user.
 *
 * Prints a token. Exit status: 0; 1 if there is no token. */

#include <amp_token.h>
#include <curl/curl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The status for what libcurl reports. */
static amp_status status_of(CURL *curl, CURLcode result) {
    long connect_status = 0;

    curl_easy_getinfo(curl, CURLINFO_HTTP_CONNECTCODE, &connect_status);
    if (connect_status >= 300)
        return AMP_PROXY;
    switch (result) {
    case CURLE_COULDNT_RESOLVE_PROXY:
        return AMP_PROXY;
    case CURLE_COULDNT_RESOLVE_HOST:
        return AMP_RESOLVE;
    case CURLE_OPERATION_TIMEDOUT:
        return AMP_TIMEOUT;
    case CURLE_SSL_CONNECT_ERROR:
    case CURLE_SSL_CACERT_BADFILE:
    case CURLE_PEER_FAILED_VERIFICATION:
        return AMP_TLS;
    case CURLE_WEIRD_SERVER_REPLY:
        return AMP_PROTOCOL;
    default:
        return AMP_CONNECT;
    }
}

static size_t take_body(char *data, size_t size, size_t count, void *reply) {
    return amp_http_reply_append_body(reply, data, size * count) ? size * count : 0;
}

/* Called for each line of the head: the status line, the headers, and the empty
 * line at its end. */
static size_t take_header(char *data, size_t size, size_t count, void *reply) {
    size_t length = size * count;
    const char *colon = memchr(data, ':', length);
    char *line;

    if (!colon)
        return length;
    line = malloc(length + 1);
    if (!line)
        return 0;
    memcpy(line, data, length);
    line[length] = '\0';
    line[strcspn(line, "\r\n")] = '\0';
    line[colon - data] = '\0';
    amp_http_reply_add_header(reply, line, line + (colon - data) + 1 + strspn(line + (colon - data) + 1, " \t"));
    free(line);
    return length;
}

/* Appends "name: value". Returns NULL without memory. */
static struct curl_slist *add_header(struct curl_slist *headers, const char *name, const char *value) {
    size_t size = strlen(name) + strlen(value) + 3;
    char *line = malloc(size);
    struct curl_slist *longer = NULL;

    if (line) {
        snprintf(line, size, "%s: %s", name, value);
        longer = curl_slist_append(headers, line);
        free(line);
    }
    if (!longer)
        curl_slist_free_all(headers);
    return longer;
}

/* The headers of a request, which the caller frees, or NULL without memory. */
static struct curl_slist *headers_of(const amp_http_request *request) {
    /* libcurl would wait for a 100 before it sends a body. */
    struct curl_slist *headers = curl_slist_append(NULL, "Expect:");
    const char *name;
    size_t i;

    for (i = 0; headers && (name = amp_http_request_header_name(request, i)) != NULL; i++)
        headers = add_header(headers, name, amp_http_request_header(request, name));
    return headers;
}

/* Each option is checked: a request must not be sent without one of them. */
#define SET(option, value)                                        \
    do {                                                          \
        CURLcode result = curl_easy_setopt(curl, option, value);  \
        if (result != CURLE_OK)                                   \
            return result;                                        \
    } while (0)

static CURLcode prepare(CURL *curl, const amp_http_request *request, struct curl_slist *headers, amp_http_reply *reply) {
    const char *url = amp_http_request_url(request), *method = amp_http_request_method(request);
    const char *ca_file = getenv("AMPLIENCE_CA_FILE");
    int64_t timeout = amp_http_request_timeout_ms(request);
    size_t length;
    const void *body = amp_http_request_body(request, &length);

    SET(CURLOPT_URL, url);
    if (strcmp(method, "HEAD") == 0)
        SET(CURLOPT_NOBODY, 1L);
    if (body || strcmp(method, "POST") == 0) {
        SET(CURLOPT_POST, 1L);
        SET(CURLOPT_POSTFIELDS, body ? body : "");
        SET(CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)length);
    }
    SET(CURLOPT_CUSTOMREQUEST, method);
    SET(CURLOPT_HTTPHEADER, headers);
    /* A redirect would send the secret to another host. */
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    /* Zero would mean no limit. */
    SET(CURLOPT_TIMEOUT_MS, timeout > 1 ? (long)timeout : 1L);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    SET(CURLOPT_HEADERFUNCTION, take_header);
    SET(CURLOPT_HEADERDATA, reply);
    SET(CURLOPT_WRITEFUNCTION, take_body);
    SET(CURLOPT_WRITEDATA, reply);
    if (ca_file && *ca_file)
        SET(CURLOPT_CAINFO, ca_file);
    /* The best of the methods that the proxy offers. The colon stands for the
     * current user, unless the proxy's URL has a user name. */
    SET(CURLOPT_PROXYAUTH, (long)CURLAUTH_ANY);
    SET(CURLOPT_PROXYUSERPWD, ":");
    /* The library uses plain http for this machine only. A proxy might send it
     * to another one, unencrypted. */
    if (strncmp(url, "https:", 6) != 0)
        SET(CURLOPT_PROXY, "");
    return CURLE_OK;
}

/* Sends one request: an amp_transport_fn. Several threads may call it. */
static int32_t send_with_curl(const amp_http_request *request, amp_http_reply *reply, void *user_data) {
    char reason[CURL_ERROR_SIZE] = "out of memory";
    struct curl_slist *headers = headers_of(request);
    CURL *curl = curl_easy_init();
    CURLcode result = CURLE_OUT_OF_MEMORY;
    long status = 0;

    (void)user_data;
    if (headers && curl) {
        reason[0] = '\0';
        result = curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, reason);
        if (result == CURLE_OK)
            result = prepare(curl, request, headers, reply);
        if (result == CURLE_OK)
            result = curl_easy_perform(curl);
        if (result == CURLE_OK)
            result = curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, &status);
    }
    if (result == CURLE_OK)
        amp_http_reply_set_status(reply, (int32_t)status);
    else
        amp_http_reply_fail(reply, curl ? status_of(curl, result) : AMP_IO, *reason ? reason : curl_easy_strerror(result));
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    return 0;
}

int main(void) {
    int result = 1;
    amp_error *error = NULL;
    amp_token *token = NULL;
    amp_config *config = amp_config_new();
    amp_status status;

    /* Before any thread is started. */
    if (curl_global_init(CURL_GLOBAL_DEFAULT) != CURLE_OK) {
        fprintf(stderr, "cannot initialize libcurl\n");
        amp_config_free(config);
        return 1;
    }
    status = amp_config_load(config, &error);
    if (status == AMP_OK)
        status = amp_config_set_transport(config, send_with_curl, NULL, &error);
    if (status == AMP_OK)
        status = amp_token_get(config, &token, &error);
    if (status != AMP_OK)
        fprintf(stderr, "cannot get a token: %s\n", amp_error_message(error));
    else if (puts(amp_token_value(token)) != EOF && fflush(stdout) == 0)
        result = 0;
    amp_token_free(token);
    amp_error_free(error);
    amp_config_free(config);
    curl_global_cleanup();
    return result;
}
