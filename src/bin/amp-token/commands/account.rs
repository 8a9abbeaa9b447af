//! `organizations` and `permissions`: to whom the credentials belong, and what they may do.

use super::api::{GRAPHQL, cache, graphql_data, http_error};
use super::permissions::Permissions;
use crate::context::Context;
use crate::exit::{CliError, CliResult, SERVER};
use crate::output;
use amp_token::api;
use amp_token::net::transport::is_success;
use amp_token::sanitize::sanitize;
use amp_token::token::cache::TokenCache;
use clap::ArgMatches;
use serde::{Deserialize, Serialize};
use std::process::ExitCode;

/// The query that the documentation of Amplience has.
const QUERY: &str = "query { viewer { organizations { edges { node { id name } } } } }";

/// The most organizations that an error names.
const MOST_NAMED: usize = 10;

/// `amp-token organizations`
pub fn organizations(context: &Context, arguments: &ArgMatches) -> CliResult<ExitCode> {
    let cache = cache(context)?;
    let found = match list(&cache)? {
        Ok(found) => found,
        Err(failed) => return Ok(failed),
    };
    output::answer(&if arguments.get_flag("json") {
        output::json(&serde_json::to_value(&found).unwrap_or_default())
    } else {
        let rows: Vec<_> = found.iter().map(|one| [one.shown_id(), sanitize(&one.name, &[])]).collect();
        output::table(["id", "name"], &rows)
    })?;
    Ok(ExitCode::SUCCESS)
}

/// The ID of the organization, if there is only one; else an error that lists them. The inner error is the exit status
/// of a failed request, which was reported.
pub fn only_organization(cache: &TokenCache) -> CliResult<Result<String, ExitCode>> {
    let found = match list(cache)? {
        Ok(found) => found,
        Err(failed) => return Ok(Err(failed)),
    };
    match found.as_slice() {
        [one] => Ok(Ok(one.id.clone())),
        [] => Err(CliError::usage("the credentials belong to no organization; name one with --organization")),
        several => {
            let mut named: Vec<_> = several
                .iter()
                .take(MOST_NAMED)
                .map(|one| format!("{} ({})", one.shown_id(), sanitize(&one.name, &[])))
                .collect();
            if several.len() > MOST_NAMED {
                named.push("…".to_owned());
            }
            let count = several.len();
            Err(CliError::usage(format!(
                "the credentials belong to {count} organizations; choose one with --organization: {}",
                named.join(", ")
            )))
        }
    }
}

#[derive(Deserialize, Serialize)]
struct Organization {
    id: String,
    #[serde(default)]
    name: String,
}

impl Organization {
    fn shown_id(&self) -> String {
        sanitize(&self.id, &[])
    }
}

#[derive(Deserialize)]
struct Data {
    viewer: Option<Viewer>,
}

#[derive(Deserialize)]
struct Viewer {
    organizations: Edges,
}

#[derive(Deserialize)]
struct Edges {
    edges: Vec<Edge>,
}

#[derive(Deserialize)]
struct Edge {
    node: Organization,
}

fn list(cache: &TokenCache) -> CliResult<Result<Vec<Organization>, ExitCode>> {
    let response = api::graphql(cache, QUERY, None)?;
    if !is_success(response.status) {
        return Ok(Err(http_error(cache, &response, "POST", GRAPHQL)));
    }
    let data: Option<Data> = graphql_data(cache, &response, "list the organizations")?;
    match data.and_then(|data| data.viewer) {
        Some(viewer) => Ok(Ok(viewer.organizations.edges.into_iter().map(|edge| edge.node).collect())),
        None => Err(CliError::new(SERVER, "the response of the API contains no organizations")),
    }
}

/// `amp-token permissions`
pub fn permissions(context: &Context, arguments: &ArgMatches) -> CliResult<ExitCode> {
    let token = cache(context)?.get()?;
    if token.is_permanent() {
        return Err(CliError::usage(
            "a personal access token does not say what it permits: it has the permissions of its user",
        ));
    }
    let permissions = Permissions::of_token(token.value())
        .map_err(|problem| CliError::new(SERVER, format!("the permissions of the token cannot be read: {problem}")))?;
    output::answer(&if arguments.get_flag("json") {
        output::json(&permissions.to_json())
    } else {
        output::table(["area", "type", "object", "rights"], &permissions.rows())
    })?;
    Ok(ExitCode::SUCCESS)
}
