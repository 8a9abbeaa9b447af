//! The APIs that need a token: hubs, content repositories, content items, and GraphQL.
//!
//! As Amplience does, the emulator rejects an invalid token with status 403, not 401.

use serde_json::{Map, Value, json};
use time::OffsetDateTime;

use crate::http::{Request, Response};
use crate::state::Shared;
use crate::tokens::uuid;

pub(crate) const CONTENT: &str = "/v2/";
pub(crate) const GRAPHQL: &str = "/graphql";

/// The hubs: name, label, number of content repositories. The first hub has several pages of them.
const HUBS: [(&str, &str, usize); 2] = [("emulated", "Emulated hub", 45), ("emulatedtest", "Emulated test hub", 3)];
const DEFAULT_PAGE_SIZE: usize = 20;

pub(crate) fn handle(shared: &Shared, request: &Request) -> Response {
    if !request.path.starts_with(CONTENT) && request.path != GRAPHQL {
        return not_found();
    }
    let Some(token) = bearer(request) else {
        return Response::empty(401).with("WWW-Authenticate", "Bearer");
    };
    if !shared.state().tokens.accepts(token, shared.now()) {
        return forbidden();
    }
    let segments: Vec<&str> = request.path.split('/').skip(1).collect();
    match (request.method.as_str(), segments.as_slice()) {
        ("GET", ["v2", "content", "hubs"]) => hubs(shared, request),
        ("GET", ["v2", "content", "hubs", id]) => match hub_index(id) {
            Some(index) => hal(200, &hub(shared, request, index)),
            None => forbidden(),
        },
        ("GET", ["v2", "content", "hubs", id, "content-repositories"]) => match hub_index(id) {
            Some(index) => repositories(shared, request, index),
            None => forbidden(),
        },
        ("GET", ["v2", "content", "content-repositories", id]) => match repository_index(id) {
            Some((hub, index)) => hal(200, &repository(shared, request, hub, index)),
            None => not_found(),
        },
        ("POST", ["v2", "content", "content-repositories", id, "content-items"]) => match repository_index(id) {
            Some(_) => create_item(shared, request),
            None => not_found(),
        },
        ("POST", ["v2", "content", "content-items", id, "publish"]) => publish(shared, request, id),
        ("GET", ["v2", "content", "publishing-jobs", id]) => match shared.state().publish_jobs.get(*id) {
            Some(job) => hal(200, job),
            None => not_found(),
        },
        ("GET", ["v2", "content", "content-items", id]) => match shared.state().items.get(*id) {
            Some(item) => hal(200, item),
            None => not_found(),
        },
        ("POST", ["graphql"]) => graphql(shared, request),
        _ => not_found(),
    }
}

/// Returns the token of an `Authorization: Bearer` header.
fn bearer(request: &Request) -> Option<&str> {
    let (scheme, token) = request.header("authorization")?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

fn forbidden() -> Response {
    errors(403, "FORBIDDEN", "Authorization required.")
}

fn not_found() -> Response {
    errors(404, "NOT_FOUND", "There is no such thing here.")
}

fn errors(status: u16, code: &str, message: &str) -> Response {
    Response::json(status, &json!({"errors": [{"level": "ERROR", "code": code, "message": message}]}))
}

fn hal(status: u16, body: &Value) -> Response {
    Response::json(status, body).with("Content-Type", "application/hal+json")
}

/// Returns the URL of `path`, with the scheme of this server and the host that the client used.
fn link(shared: &Shared, request: &Request, path: &str) -> String {
    let (scheme, host) = (shared.scheme(), request.header("host").unwrap_or("localhost"));
    format!("{scheme}://{host}/v2/content/{path}")
}

pub(crate) fn hub_id(index: usize) -> String {
    format!("{:024x}", 0x0005_eed0_0000_0000_u64 + index as u64)
}

fn hub_index(id: &str) -> Option<usize> {
    (0..HUBS.len()).find(|index| hub_id(*index) == id)
}

pub(crate) fn repository_id(hub: usize, index: usize) -> String {
    format!("{:024x}", 0x0005_eed1_0000_0000_u64 + (hub as u64 * 0x1_0000) + index as u64)
}

fn repository_index(id: &str) -> Option<(usize, usize)> {
    let all = HUBS.iter().enumerate().flat_map(|(hub, (_, _, count))| (0..*count).map(move |index| (hub, index)));
    all.into_iter().find(|(hub, index)| repository_id(*hub, *index) == id)
}

/// Returns one page of a collection; `item` makes each of its items.
fn page(request: &Request, name: &str, link: &str, total: usize, item: impl Fn(usize) -> Value) -> Response {
    let number = |name, default| request.query_parameter(name).map_or(Some(default), |text| text.parse().ok());
    let (Some(page), Some(size @ 1..)) = (number("page", 0), number("size", DEFAULT_PAGE_SIZE)) else {
        return errors(400, "BAD_REQUEST", "page and size must be numbers, and size above 0.");
    };
    let start = page.saturating_mul(size).min(total);
    let items: Vec<Value> = (start..start.saturating_add(size).min(total)).map(item).collect();
    let separator = if request.query.is_empty() { "" } else { "?" };
    hal(
        200,
        &json!({
            "_embedded": {name: items},
            "_links": {"self": {"href": format!("{link}{separator}{}", request.query)}},
            "page": {"size": size, "totalElements": total, "totalPages": total.div_ceil(size), "number": page},
        }),
    )
}

fn hubs(shared: &Shared, request: &Request) -> Response {
    let link = link(shared, request, "hubs");
    page(request, "hubs", &link, HUBS.len(), |index| hub(shared, request, index))
}

fn hub(shared: &Shared, request: &Request, index: usize) -> Value {
    let (name, label, _) = HUBS[index];
    let itself = link(shared, request, &format!("hubs/{}", hub_id(index)));
    json!({
        "id": hub_id(index),
        "name": name,
        "label": label,
        "description": format!("{label} of the emulator"),
        "status": "ACTIVE",
        "settings": {
            "virtualStagingEnvironment": {"hostname": format!("{name}.staging.invalid")},
            "previewVirtualStagingEnvironment": {"hostname": format!("{name}.preview.invalid")},
            "applications": [],
            "devices": [{"name": "Tablet", "width": 1024, "height": 768, "orientate": true}],
            "publishing": {"platforms": {"amplience_dam": {"API_KEY": "emulated", "endpoint": name}}},
        },
        "createdBy": "emulator",
        "createdDate": "2024-01-01T00:00:00.000Z",
        "lastModifiedBy": "emulator",
        "lastModifiedDate": "2024-01-01T00:00:00.000Z",
        "_links": {
            "self": {"href": itself},
            "content-repositories": {
                "href": format!("{itself}/content-repositories{{?page,size,sort}}"),
                "templated": true,
            },
        },
    })
}

fn repositories(shared: &Shared, request: &Request, hub: usize) -> Response {
    let link = link(shared, request, &format!("hubs/{}/content-repositories", hub_id(hub)));
    page(request, "content-repositories", &link, HUBS[hub].2, |index| repository(shared, request, hub, index))
}

fn repository(shared: &Shared, request: &Request, hub: usize, index: usize) -> Value {
    let id = repository_id(hub, index);
    json!({
        "id": id,
        "name": format!("repository-{index:02}"),
        "label": format!("Repository {index:02}"),
        "_links": {"self": {"href": link(shared, request, &format!("content-repositories/{id}"))}},
    })
}

fn create_item(shared: &Shared, request: &Request) -> Response {
    let Ok(mut item) = serde_json::from_slice::<Map<String, Value>>(&request.body) else {
        return errors(400, "BAD_REQUEST", "The body must be a JSON object.");
    };
    let id = uuid();
    let href = link(shared, request, &format!("content-items/{id}"));
    item.insert("id".to_owned(), json!(id));
    let publish = format!("{href}/publish");
    item.insert("_links".to_owned(), json!({"self": {"href": href}, "publish": {"href": publish}}));
    let item = Value::Object(item);
    let response = hal(201, &item);
    shared.state().items.insert(id, item);
    response
}

/// Publishes an item as dc-cli expects it: status 204 and the job's URL. The job is complete immediately.
fn publish(shared: &Shared, request: &Request, id: &str) -> Response {
    if !shared.state().items.contains_key(id) {
        return not_found();
    }
    let job_id = uuid();
    let href = link(shared, request, &format!("publishing-jobs/{job_id}"));
    let job = json!({"id": job_id, "state": "COMPLETED", "_links": {"self": {"href": href}}});
    let mut state = shared.state();
    state.stats.publications += 1;
    state.publish_jobs.insert(job_id, job);
    Response::empty(204).with("Location", &href)
}

/// The organization of the emulator's client: its ID and name.
const ORGANIZATION: (&str, &str) = ("T3JnYW5pemF0aW9uOjE=", "Emulated organization");

/// Handles one query and one mutation; the response to any other query is the type name of the root.
fn graphql(shared: &Shared, request: &Request) -> Response {
    let body: Value = serde_json::from_slice(&request.body).unwrap_or_default();
    let Some(query) = body["query"].as_str() else {
        return graphql_error(400, "BAD_REQUEST", "The body must be a JSON object with a query.");
    };
    if query.contains("viewer") && query.contains("organizations") {
        let (id, name) = ORGANIZATION;
        let edges = json!([{"node": {"id": id, "name": name}}]);
        return Response::json(200, &json!({"data": {"viewer": {"organizations": {"edges": edges}}}}));
    }
    let Some((_, input)) = query.split_once("createPersonalAccessToken") else {
        return Response::json(200, &json!({"data": {"__typename": "Query"}}));
    };
    let (Some(name), Some(_)) = (argument(input, &body, "name"), argument(input, &body, "organizationId")) else {
        return graphql_error(200, "BAD_USER_INPUT", "The input needs a name and an organizationId.");
    };
    let Some(created) = shared.state().tokens.add_personal() else {
        return graphql_error(200, "LIMIT_EXCEEDED", "There are already five personal access tokens.");
    };
    let moment = OffsetDateTime::from(shared.now());
    let ((year, month, day), (hour, minute, second)) = (moment.to_calendar_date(), moment.to_hms());
    let month = u8::from(month);
    Response::json(
        200,
        &json!({"data": {"createPersonalAccessToken": {
            "id": created.id,
            "name": name,
            "token": created.token,
            "createdDate": format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.000Z"),
            "lastUsedDate": null,
        }}}),
    )
}

fn graphql_error(status: u16, code: &str, message: &str) -> Response {
    Response::json(status, &json!({"data": null, "errors": [{"message": message, "extensions": {"code": code}}]}))
}

/// Returns one field of a mutation's input. It may be a literal in the query, a variable, or a field of a
/// variable that holds the whole input. This searches the text: parsing GraphQL would need a library.
fn argument(input: &str, body: &Value, name: &str) -> Option<String> {
    let in_query = input.match_indices(name).find_map(|(start, _)| {
        let value = input[start + name.len()..].trim_start().strip_prefix(':')?.trim_start();
        if let Some(variable) = value.strip_prefix('$') {
            let end = variable.find(|letter: char| !letter.is_alphanumeric() && letter != '_');
            return body["variables"][&variable[..end.unwrap_or(variable.len())]].as_str().map(str::to_owned);
        }
        // GraphQL and JSON strings have the same syntax, so the JSON parser finds the end.
        serde_json::Deserializer::from_str(value).into_iter::<String>().next()?.ok()
    });
    in_query.or_else(|| {
        let mut variables = body["variables"].as_object()?.iter();
        variables.find_map(|(_, value)| value[name].as_str().map(str::to_owned))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_found_in_queries_and_variables() {
        let inline = json!({"query": r#"(input: {name: "a \"b\" c", organizationId:"o"}) { id name token }"#});
        let single = json!({
            "query": "(input: {name: $title, organizationId: $org}) { id name }",
            "variables": {"title": "a \"b\" c", "org": "o"},
        });
        let whole = json!({
            "query": "(input: $input) { id name token }",
            "variables": {"input": {"name": "a \"b\" c", "organizationId": "o"}},
        });
        for body in [inline, single, whole] {
            let query = body["query"].as_str().unwrap();
            assert_eq!(argument(query, &body, "name").as_deref(), Some("a \"b\" c"), "{body}");
            assert_eq!(argument(query, &body, "organizationId").as_deref(), Some("o"), "{body}");
            assert_eq!(argument(query, &body, "other"), None);
        }
    }

    #[test]
    fn ids_are_24_hex_digits_and_unique() {
        assert_eq!((hub_id(0).len(), repository_id(1, 2).len()), (24, 24));
        assert_eq!(hub_index(&hub_id(1)), Some(1));
        assert_eq!(repository_index(&repository_id(1, 2)), Some((1, 2)));
        assert_eq!(repository_index(&repository_id(1, 3)), None);
    }
}
