//! Tells an engine the credentials of a registry that it pulls from or pushes to for us.

use bollard_buildkit_proto::moby::filesync::v1::{CredentialsRequest, CredentialsResponse};
use tonic::{Request, Status};

use crate::base::{Cancel, Secret};
use crate::registry::{Credential, Registry};

pub async fn find(registry: Registry, request: Request<CredentialsRequest>) -> Result<CredentialsResponse, Status> {
    let host = request.into_inner().host;
    let asked = host.clone();
    // Helpers are programs that are waited for.
    let found = tokio::task::spawn_blocking(move || registry.credential(&asked, &Cancel::new()))
        .await
        .map_err(|error| Status::internal(error.to_string()))?
        .map_err(|error| Status::failed_precondition(error.to_string()))?;
    let text = |secret: &Secret| secret.expose_str().map(str::to_owned);
    Ok(match found {
        Some(Credential::Password { user, password }) => {
            CredentialsResponse { username: user, secret: text(&password).unwrap_or_default() }
        }
        // An empty name says that the secret is one to get tokens with.
        Some(Credential::IdentityToken(token)) => {
            CredentialsResponse { username: String::new(), secret: text(&token).unwrap_or_default() }
        }
        Some(Credential::Bearer(_)) => {
            return Err(Status::failed_precondition(format!(
                "the token for {host} is one to show as it is, which an engine elsewhere cannot"
            )));
        }
        None => CredentialsResponse::default(),
    })
}
