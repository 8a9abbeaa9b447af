typedef enum {
    AMP_OK = 0,
    AMP_INVALID_ARGUMENT = 10,
    AMP_CONFIG = 11,
    AMP_NO_CREDENTIALS = 20,
    AMP_CREDENTIALS_REJECTED = 21,
    AMP_RESOLVE = 30,
    AMP_CONNECT = 31,
    AMP_TLS = 32,
    AMP_PROXY = 33,
    AMP_TIMEOUT = 34,
    AMP_RATE_LIMITED = 40,
    AMP_SERVER = 41,
    AMP_PROTOCOL = 50,
    AMP_IO = 60,
    AMP_BUFFER_TOO_SMALL = 61,
    AMP_PENDING = 62,
    AMP_INTERNAL = 69,
} amp_status;

typedef enum {
    AMP_LOG_ERROR = 1,
    AMP_LOG_WARNING = 2,
    AMP_LOG_INFO = 3,
    AMP_LOG_DEBUG = 4,
} amp_log_level;

typedef enum {
    AMP_EVENT_REFRESHED = 1,
    AMP_EVENT_REFRESH_FAILED = 2,
    AMP_EVENT_TOKEN_REJECTED = 3,
} amp_event;

typedef struct amp_config amp_config;

typedef struct amp_error amp_error;

typedef struct amp_http_reply amp_http_reply;

typedef struct amp_http_request amp_http_request;

typedef struct amp_response amp_response;

typedef struct amp_token amp_token;

typedef struct amp_token_cache amp_token_cache;

typedef void (*amp_log_fn)(int32_t level, const char *message, void *user_data);

typedef void (*amp_observer_fn)(int32_t event, const amp_error *error, void *user_data);

typedef int32_t (*amp_transport_fn)(const amp_http_request *request, amp_http_reply *reply, void *user_data);

typedef bool (*amp_write_fn)(const void *data, size_t length, void *user_data);

const char *amp_version(void);

uint32_t amp_abi_version(void);

const char *amp_status_name(int32_t status);

amp_status amp_error_status(const amp_error *error);

const char *amp_error_message(const amp_error *error);

int32_t amp_error_http_status(const amp_error *error);

const char *amp_error_oauth_code(const amp_error *error);

bool amp_error_is_retryable(const amp_error *error);

int64_t amp_error_retry_after_ms(const amp_error *error);

uint32_t amp_error_attempts(const amp_error *error);

void amp_error_free(amp_error *error);

amp_config *amp_config_new(void);

amp_status amp_config_set(amp_config *config, const char *name, const char *value, amp_error **error);

amp_status amp_config_load(amp_config *config, amp_error **error);

amp_status amp_config_set_logger(amp_config *config, amp_log_fn logger, void *user_data, amp_error **error);

amp_status amp_config_queue_log_lines(amp_config *config, size_t capacity, amp_error **error);

bool amp_config_next_log_line(const amp_config *config, int32_t *level, char *buffer, size_t capacity);

amp_status amp_config_set_observer(amp_config *config, amp_observer_fn observer, void *user_data, amp_error **error);

amp_status amp_config_set_transport(amp_config *config, amp_transport_fn send, void *user_data, amp_error **error);

void amp_config_stop_callbacks(const amp_config *config);

void amp_config_free(amp_config *config);

amp_status amp_token_get(const amp_config *config, amp_token **token, amp_error **error);

const char *amp_token_value(const amp_token *token);

size_t amp_token_length(const amp_token *token);

const char *amp_token_authorization(const amp_token *token);

int64_t amp_token_expires_at(const amp_token *token);

int64_t amp_token_expires_in(const amp_token *token);

int64_t amp_token_refresh_in_ms(const amp_token *token);

amp_token *amp_token_clone(const amp_token *token);

void amp_token_free(amp_token *token);

amp_status amp_token_cache_new(const amp_config *config, amp_token_cache **cache, amp_error **error);

amp_status amp_token_cache_get(const amp_token_cache *cache, amp_token **token, amp_error **error);

amp_status amp_token_cache_get_for(const amp_token_cache *cache, int64_t min_validity_ms, amp_token **token, amp_error **error);

amp_status amp_token_cache_copy(const amp_token_cache *cache, char *buffer, size_t capacity, size_t *length, amp_error **error);

amp_status amp_token_cache_try_get(const amp_token_cache *cache, amp_token **token, amp_error **error);

bool amp_token_cache_report(const amp_token_cache *cache, const amp_token *token, int32_t http_status, const void *body, size_t body_length);

void amp_token_cache_invalidate(const amp_token_cache *cache, const amp_token *token);

const uint64_t *amp_token_cache_epoch(const amp_token_cache *cache);

const char *amp_token_cache_api_url(const amp_token_cache *cache);

int64_t amp_token_cache_stat(const amp_token_cache *cache, const char *name);

void amp_token_cache_free(amp_token_cache *cache);

amp_status amp_api_request(const amp_token_cache *cache, const char *method, const char *path, const char *content_type, const void *body, size_t body_length, amp_response **response, amp_error **error);

amp_status amp_api_send(const amp_token_cache *cache, const char *method, const char *path, const char *const *headers, const void *body, size_t body_length, int64_t timeout_ms, amp_response **response, amp_error **error);

amp_status amp_api_download(const amp_token_cache *cache, const char *path, amp_write_fn write, void *user_data, amp_response **response, amp_error **error);

amp_status amp_api_graphql(const amp_token_cache *cache, const char *query, const char *variables_json, amp_response **response, amp_error **error);

amp_status amp_pat_create(const amp_token_cache *cache, const char *name, const char *organization_id, amp_response **response, amp_error **error);

int32_t amp_response_status(const amp_response *response);

const char *amp_response_header(const amp_response *response, const char *name);

const void *amp_response_body(const amp_response *response, size_t *length);

const char *amp_response_next_page(const amp_response *response);

void amp_response_free(amp_response *response);

const char *amp_http_request_method(const amp_http_request *request);

const char *amp_http_request_url(const amp_http_request *request);

const char *amp_http_request_header_name(const amp_http_request *request, size_t index);

const char *amp_http_request_header(const amp_http_request *request, const char *name);

const void *amp_http_request_body(const amp_http_request *request, size_t *length);

int64_t amp_http_request_timeout_ms(const amp_http_request *request);

void amp_http_reply_set_status(amp_http_reply *reply, int32_t status);

void amp_http_reply_add_header(amp_http_reply *reply, const char *name, const char *value);

bool amp_http_reply_append_body(amp_http_reply *reply, const void *data, size_t length);

void amp_http_reply_fail(amp_http_reply *reply, int32_t status, const char *message);
