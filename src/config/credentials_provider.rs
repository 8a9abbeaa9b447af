//! Finds the credentials: reads those that settings have, and those that files and programs have. The order of the
//! sources is that of [`super::sources`].
//!
//! Settings are read when the configuration is made. Files are read here, and the program is run here, each time that
//! credentials are needed, so that a secret that was rotated is found. That ends by the deadline of the call.

use super::config::Origin;
use super::credential_command::{self, Output};
use super::credentials::Credentials;
use super::credentials_dir;
use super::dc_cli::{self, from_dc_cli};
use super::environment::Environment;
use super::file_access::report_if_readable_by_others;
use super::options::{CredentialOptions, Options};
use super::sources::{IDS, PERSONAL, SECRETS, conflict};
use super::text::trim_text;
use crate::error::{Error, Kind, Result, resource_limit};
use crate::log::Log;
use crate::sanitize::sanitize;
use crate::sys::deadline::IoDeadline;
use crate::sys::read_file::{FileContent, read_file};
use crate::sys::secret::Secret;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Duration;
use zeroize::Zeroizing;

/// The largest file that is read as a secret or as dc-cli's configuration, in bytes.
const FILE_LIMIT: usize = 1024 * 1024;

/// The files of dc-cli below the home directory: that of the current hub, and that of all hubs.
const DC_CLI_FILES: [&str; 2] = [".amplience/dc-cli-config.json", dc_cli::HUBS];

/// Finds credentials in the settings and files.
#[derive(Clone, Debug)]
pub struct CredentialsProvider {
    options: CredentialOptions,
    /// Files in dc-cli's format, in the order in which they are read.
    files: Vec<PathBuf>,
    environment: Environment,
    log: Log,
}

impl CredentialsProvider {
    /// Checks that the settings name one kind of credentials; reads no file.
    pub fn new(options: &Options) -> Result<Self> {
        let log = options.log.clone();
        let environment = options.environment.clone();
        let options = options.credentials.clone();
        let files = match (&options.config_file, options.environment_loaded, environment.home()) {
            (Some(file), ..) => vec![file.clone()],
            (None, true, Some(home)) => DC_CLI_FILES.map(|file| home.join(file)).to_vec(),
            _ => Vec::new(),
        };
        let provider = CredentialsProvider { options, files, environment, log };
        let first_two = |names: &[&str]| {
            let mut set = names.iter().filter_map(|name| provider.description(name));
            set.next().zip(set.next())
        };
        let personal = PERSONAL.iter().find_map(|name| provider.description(name));
        let id = IDS.iter().find_map(|name| provider.description(name));
        if let Some((one, other)) = first_two(&SECRETS).or(first_two(&IDS)).or(personal.zip(id)) {
            return Err(conflict(one, other));
        }
        provider.options.credential_command.as_deref().map_or(Ok(()), credential_command::check_privileges)?;
        provider.options.unused.iter().for_each(|line| provider.log.warning(|| line));
        if let Some((secret, id)) = provider.mixed() {
            provider.log.info(|| format!("the secret is from {secret}, and the client id from {id}"));
        }
        Ok(provider)
    }

    /// How messages name a setting of credentials; `None` if it is not set.
    fn description(&self, name: &str) -> Option<&str> {
        let (_, description, _) = self.options.origins.iter().find(|(have, ..)| *have == name)?;
        Some(description)
    }

    /// Where a value is from that is in no file.
    fn origin(&self, name: &str) -> String {
        match self.options.origins.iter().find(|(have, ..)| *have == name) {
            Some((_, variable, Origin::Environment(_))) => variable.clone(),
            Some((.., Origin::Profile)) => self.options.profile.clone().unwrap_or_default(),
            _ => "the settings".to_owned(),
        }
    }

    /// The origins of the secret and of the client id, if they are of two sources.
    fn mixed(&self) -> Option<(String, String)> {
        let find = |names: &[&str]| {
            self.options
                .origins
                .iter()
                .find(|(have, ..)| names.contains(have))
                .map(|(name, _, origin)| (*name, *origin))
        };
        let ((secret, one), (id, other)) = (find(&SECRETS)?, find(&IDS)?);
        (!one.is_like(other)).then(|| (self.origin(secret), self.origin(id)))
    }

    /// Whether the credentials may have changed since they were read.
    pub fn may_change(&self) -> bool {
        let CredentialOptions { client_id, client_secret, personal_access_token, .. } = &self.options;
        let set = personal_access_token.is_some() || (client_id.is_some() && client_secret.is_some());
        !set
    }

    /// Whether a program is run to find the credentials. That is not done before a token is needed.
    pub fn runs_program(&self) -> bool {
        self.options.credential_command.is_some()
    }

    /// What is known of the credentials before a program is run: where they are from, and the client id.
    pub fn preview(&self) -> (String, Option<&str>) {
        let command = self.options.credential_command.as_deref().unwrap_or_default();
        (self.with_id_origin(credential_command::describe(command)), self.options.client_id.as_deref())
    }

    /// The origin of a secret, and that of the client id if it is another one.
    fn with_id_origin(&self, origin: String) -> String {
        match self.mixed() {
            Some((_, id)) => format!("{origin}, with the client id from {id}"),
            None => origin,
        }
    }

    /// Finds the credentials, and describes where they are from. Takes at most `timeout`.
    pub fn resolve(&self, timeout: Duration) -> Result<(Credentials, String)> {
        let deadline = IoDeadline::after(timeout);
        let options = &self.options;
        if let Some(token) = &options.personal_access_token {
            return Ok((
                Credentials::from_personal_access_token(token.expose(), "personal_access_token", &self.log)?,
                self.origin("personal_access_token"),
            ));
        }
        if let Some(file) = &options.personal_access_token_file {
            let (text, origin) = (self.read_secret(file, "personal_access_token_file", deadline)?, display_path(file));
            return Ok((Credentials::from_personal_access_token(&text, &origin, &self.log)?, origin));
        }
        if let Some(secret) = &options.client_secret {
            let id = self.require_id(deadline)?;
            let credentials = Credentials::Client { id, secret: secret.clone() };
            return Ok((credentials, self.with_id_origin(self.origin("client_secret"))));
        }
        if let Some(file) = &options.client_secret_file {
            let id = self.require_id(deadline)?;
            let secret = Secret::from(self.read_secret(file, "client_secret_file", deadline)?.as_str());
            return Ok((Credentials::Client { id, secret }, self.with_id_origin(display_path(file))));
        }
        if let Some(command) = &options.credential_command {
            return self.run_command(command, deadline);
        }
        if let Some(directory) = &options.credentials_dir {
            return self.read_directory(directory, deadline)?.ok_or_else(|| {
                let files = credentials_dir::FILES.join(", ");
                Error::new(
                    Kind::NoCredentials,
                    format!("credentials_dir {} has none of the files {files}", display_path(directory)),
                )
                .with_hint("check the path, and the names of the files")
            });
        }
        if let Some((file, key)) = &options.hub {
            return self.read_hub(file, key, deadline);
        }
        let id = self.id(deadline)?;
        if let Some(directory) = &options.default_credentials_dir
            && let Some(found) = self.read_directory(directory, deadline)?
        {
            return Ok(found);
        }
        self.find_in_files(id.as_deref(), deadline)
    }

    /// The client id that is set.
    fn id(&self, deadline: IoDeadline) -> Result<Option<String>> {
        match (&self.options.client_id, &self.options.client_id_file) {
            (Some(id), _) => Ok(Some(id.clone())),
            (None, Some(file)) => Ok(Some(self.read_secret(file, "client_id_file", deadline)?.as_str().to_owned())),
            (None, None) => Ok(None),
        }
    }

    /// The client id for a secret that has none of its own.
    fn require_id(&self, deadline: IoDeadline) -> Result<String> {
        self.id(deadline)?.ok_or_else(|| {
            Error::new(Kind::NoCredentials, "a client secret is set, but no client_id")
                .with_hint(self.hint("set AMPLIENCE_CLIENT_ID, or client_id"))
        })
    }

    /// The client id of a source, which must be the one that is set, if any.
    fn agreed_id(&self, own: String, origin: &str, deadline: IoDeadline) -> Result<String> {
        match self.id(deadline)? {
            Some(set) if set != own => {
                let name = IDS.iter().find_map(|name| self.description(name)).unwrap_or_default();
                let (own, set) = (sanitize(&own, &[]), sanitize(&set, &[]));
                Err(Error::new(Kind::Config, format!("{origin} is of client {own}, but {name} is {set}"))
                    .with_hint(format!("unset {name}, or use the credentials of that client")))
            }
            _ => Ok(own),
        }
    }

    fn run_command(&self, command: &[String], deadline: IoDeadline) -> Result<(Credentials, String)> {
        let name = credential_command::describe(command);
        self.log.debug(|| format!("running {name}"));
        let is_personal = |secret: &Secret| secret.expose().starts_with("amp_pat_");
        let credentials = match credential_command::run(command, &self.environment, deadline)? {
            Output::Client { id, secret } => Credentials::Client { id: self.agreed_id(id, &name, deadline)?, secret },
            Output::Text(secret) | Output::PersonalAccessToken(secret) if is_personal(&secret) => {
                self.personal(&secret, &name)?
            }
            Output::PersonalAccessToken(secret) => self.personal(&secret, &name)?,
            Output::Text(secret) | Output::ClientSecret(secret) => {
                let Some(id) = self.id(deadline)? else {
                    return Err(Error::new(
                        Kind::NoCredentials,
                        format!("{name} printed a secret, but there is no client_id"),
                    )
                    .with_hint("set client_id, or let it print a JSON object with client_id and client_secret"));
                };
                return Ok((Credentials::Client { id, secret }, self.with_id_origin(name)));
            }
        };
        Ok((credentials, name))
    }

    /// A personal access token from a source, beside which no client may be set.
    fn personal(&self, token: &Secret, origin: &str) -> Result<Credentials> {
        if let Some(id) = IDS.iter().find_map(|name| self.description(name)) {
            return Err(Error::new(Kind::Config, format!("{origin} has a personal access token, but {id} is set"))
                .with_hint(format!("unset {id}, or use the secret of that client")));
        }
        Credentials::from_personal_access_token(token.expose(), origin, &self.log)
    }

    /// Reads the files of a directory; `None` if it has none of them.
    fn read_directory(&self, directory: &Path, deadline: IoDeadline) -> Result<Option<(Credentials, String)>> {
        let origin = display_path(directory);
        let [id, secret, token] =
            credentials_dir::read(directory, |file| match self.read(file, "the file", false, deadline)? {
                Some(bytes) => self.secret_in(&bytes, file, "credentials_dir").map(Some),
                None => Ok(None),
            })?;
        let text = |value: Zeroizing<String>| value.as_str().to_owned();
        let credentials = match (id, secret, token) {
            (None, None, None) => return Ok(None),
            (_, Some(_), Some(_)) => {
                let files = display_path(&directory.join("client_secret"));
                return Err(conflict(&files, "personal_access_token beside it"));
            }
            (_, None, Some(token)) => self.personal(&Secret::from(token.as_str()), &origin)?,
            (Some(id), Some(secret), None) => {
                let id = self.agreed_id(text(id), &origin, deadline)?;
                Credentials::Client { id, secret: Secret::from(secret.as_str()) }
            }
            (None, Some(secret), None) => {
                let Some(id) = self.id(deadline)? else {
                    let message = format!("{origin} has a client_secret, but no client_id");
                    return Err(
                        Error::new(Kind::NoCredentials, message).with_hint("add the file client_id, or set client_id")
                    );
                };
                let credentials = Credentials::Client { id, secret: Secret::from(secret.as_str()) };
                let name = IDS.into_iter().find(|name| self.description(name).is_some());
                let origin = match (&self.options.credentials_dir, name) {
                    // Systemd's directory is a source of its own.
                    (None, Some(name)) => format!("{origin}, with the client id from {}", self.origin(name)),
                    _ => self.with_id_origin(origin),
                };
                return Ok(Some((credentials, origin)));
            }
            (Some(_), None, None) => {
                let message = format!("{origin} has a client_id, but no client_secret");
                return Err(Error::new(Kind::NoCredentials, message).with_hint("add the file client_secret"));
            }
        };
        Ok(Some((credentials, origin)))
    }

    /// Reads the credentials of a hub of dc-cli.
    fn read_hub(&self, file: &Path, key: &str, deadline: IoDeadline) -> Result<(Credentials, String)> {
        let origin = self.options.profile.clone().unwrap_or_default();
        let text = self.read(file, "the hubs of dc-cli in", true, deadline)?.unwrap_or_default();
        match dc_cli::of_hub(&text, &display_path(file), key, &self.log)? {
            Some(Credentials::Client { id, secret }) => {
                let id = self.agreed_id(id, &origin, deadline)?;
                Ok((Credentials::Client { id, secret }, origin))
            }
            Some(Credentials::PersonalAccessToken(token)) => Ok((self.personal(&token, &origin)?, origin)),
            None => Err(Error::new(Kind::NoCredentials, format!("{origin} is not there any more"))
                .with_hint("add the hub again with dc-cli")),
        }
    }

    /// Searches dc-cli's files, only for this client if it is given.
    fn find_in_files(&self, id: Option<&str>, deadline: IoDeadline) -> Result<(Credentials, String)> {
        let must_exist = self.options.config_file.is_some();
        for file in &self.files {
            let Some(text) = self.read(file, "config_file", must_exist, deadline)? else { continue };
            let found = from_dc_cli(&text, &display_path(file), id, &self.log)?;
            if let Some(credentials) = found {
                return Ok((credentials, display_path(file)));
            }
        }
        if let Some(id) = id {
            return Err(Error::new(
                Kind::NoCredentials,
                format!("there is no secret for client_id {}", sanitize(id, &[])),
            )
            .with_hint(self.hint("set AMPLIENCE_CLIENT_SECRET, client_secret, or client_secret_file")));
        }
        let looked: Vec<_> = self.files.iter().map(|file| display_path(file)).collect();
        let also = if looked.is_empty() {
            String::new()
        } else {
            format!(", neither in the settings nor in {}", looked.join(" or "))
        };
        Err(Error::new(Kind::NoCredentials, format!("no credentials were found{also}")).with_hint(self.hint(
            "set AMPLIENCE_CLIENT_ID and AMPLIENCE_CLIENT_SECRET (or client_id with client_secret or client_secret_file), or AMPLIENCE_PAT",
        )))
    }

    /// The advice, and a reason why following it may not have helped: variables count only if they are loaded.
    fn hint(&self, advice: &str) -> String {
        if self.options.environment_loaded {
            return advice.to_owned();
        }
        format!(
            "{advice}; the program has not read its environment: it must call amp_config_load() (load() in C++) first"
        )
    }

    /// Reads a file that contains one secret. White space around it is removed.
    fn read_secret(&self, file: &Path, setting: &str, deadline: IoDeadline) -> Result<Zeroizing<String>> {
        let bytes = self.read(file, setting, true, deadline)?.unwrap_or_default();
        self.secret_in(&bytes, file, setting)
    }

    /// The one secret that is the content of a file.
    fn secret_in(&self, bytes: &[u8], file: &Path, setting: &str) -> Result<Zeroizing<String>> {
        let text = std::str::from_utf8(bytes).map_err(|_| {
            Error::new(Kind::Config, format!("{setting} {} is not UTF-8", display_path(file)))
                .with_hint("write the secret into it as plain text")
        })?;
        match trim_text(text) {
            "" => Err(Error::new(Kind::NoCredentials, format!("{setting} {} is empty", display_path(file)))
                .with_hint("write the secret into it")),
            secret => Ok(Zeroizing::new(secret.to_owned())),
        }
    }

    /// Reads a whole file; `None` if it does not exist and need not exist.
    fn read(
        &self,
        file: &Path,
        setting: &str,
        must_exist: bool,
        deadline: IoDeadline,
    ) -> Result<Option<Zeroizing<Vec<u8>>>> {
        #[cfg(simulator)]
        if let Some(content) = crate::sys::simulation::world().file(file) {
            return Ok(Some(Zeroizing::new(content)));
        }
        let FileContent { bytes, about, opened } = match read_file(file, FILE_LIMIT, deadline) {
            Ok(content) => content,
            Err(error) if !must_exist && error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == ErrorKind::TimedOut => {
                let message = format!("reading {setting} {} timed out after {deadline}", display_path(file));
                return Err(Error::new(Kind::Timeout, message).with_hint(
                    "check what writes to it if it is a pipe, or the file server that it is on; or raise timeout_ms",
                ));
            }
            Err(error) => {
                let advice = resource_limit(&error).map_or("check the path and its permissions", |(_, advice)| advice);
                let message = format!("cannot read {setting} {}: {error}", display_path(file));
                return Err(Error::new(Kind::Io, message).with_hint(advice));
            }
        };
        report_if_readable_by_others(&opened, &about, file, &self.log);
        if bytes.len() > FILE_LIMIT {
            return Err(Error::new(
                Kind::Config,
                format!("{setting} {} is larger than {FILE_LIMIT} bytes", display_path(file)),
            )
            .with_hint("check the path"));
        }
        Ok(Some(bytes))
    }
}

fn display_path(file: &Path) -> String {
    sanitize(&file.display().to_string(), &[])
}

#[cfg(test)]
mod tests {
    use super::super::Config;
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(60);

    struct TestDirectory(PathBuf);

    impl TestDirectory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("amp-credentials-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            TestDirectory(path)
        }

        fn file(&self, name: &str, content: &str) -> String {
            let path = self.0.join(name);
            std::fs::write(&path, content).unwrap();
            path.to_str().unwrap().to_owned()
        }
    }

    impl Drop for TestDirectory {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn resolve(settings: &[(&str, &str)]) -> Result<Credentials> {
        let mut config = Config::new();
        for (name, value) in settings {
            config.set(name, Some(value)).unwrap();
        }
        Ok(CredentialsProvider::new(&config.options()?)?.resolve(TIMEOUT)?.0)
    }

    fn client(id: &str, secret: &str) -> Credentials {
        Credentials::Client { id: id.into(), secret: secret.into() }
    }

    #[test]
    fn credentials_that_are_set_are_used() {
        assert_eq!(resolve(&[("client_id", "i"), ("client_secret", "s")]).unwrap(), client("i", "s"));
        assert_eq!(
            resolve(&[("personal_access_token", " amp_pat_x\n")]).unwrap(),
            Credentials::PersonalAccessToken("amp_pat_x".into())
        );
        assert_eq!(
            resolve(&[("personal_access_token", "\u{feff}amp_pat_x\r\n")]).unwrap(),
            Credentials::PersonalAccessToken("amp_pat_x".into())
        );
    }

    #[test]
    fn the_file_of_a_secret_is_trimmed_and_read_each_time() {
        let directory = TestDirectory::new("file");
        let file = directory.file("secret", "first\n");
        let mut config = Config::new();
        config.set("client_id", Some("i")).unwrap();
        config.set("client_secret_file", Some(&file)).unwrap();
        let credentials_provider = CredentialsProvider::new(&config.options().unwrap()).unwrap();
        assert!(credentials_provider.may_change());
        assert_eq!(credentials_provider.resolve(TIMEOUT).unwrap().0, client("i", "first"));
        for (text, secret) in [("second\r\n", "second"), ("\u{feff}third\n", "third"), (" four th \t", "four th")] {
            directory.file("secret", text);
            assert_eq!(credentials_provider.resolve(TIMEOUT).unwrap().0, client("i", secret));
        }
    }

    #[test]
    fn files_of_dc_cli_are_read() {
        let directory = TestDirectory::new("dc-cli");
        for (content, id, expected) in [
            (r#"{"clientId":"i","clientSecret":"s","hubId":"h","dstClientId":"x"}"#, None, client("i", "s")),
            (
                r#"{"clientId":"i","clientSecret":"s","patToken":"amp_pat_1"}"#,
                None,
                Credentials::PersonalAccessToken("amp_pat_1".into()),
            ),
            (
                r#"[{"clientId":"a","clientSecret":"1","_":[]},{"clientId":"b","clientSecret":"2","isActive":true}]"#,
                None,
                client("b", "2"),
            ),
            (
                r#"[{"clientId":"a","clientSecret":"1"},{"clientId":"b","clientSecret":"2"}]"#,
                Some("b"),
                client("b", "2"),
            ),
            ("\u{feff}{\"clientId\":\" i\\n\",\"clientSecret\":\"\u{feff}s\\r\\n\"}", None, client("i", "s")),
            (r#"[{"clientId":"a","clientSecret":"1"},{"clientId":"a","clientSecret":"1"}]"#, None, client("a", "1")),
            (r#"[{"$0":"x"},{"clientId":"a","clientSecret":"1"}]"#, None, client("a", "1")),
        ] {
            let file = directory.file("config.json", content);
            let mut settings = vec![("config_file", file.as_str())];
            settings.extend(id.map(|id| ("client_id", id)));
            assert_eq!(resolve(&settings).unwrap(), expected, "{content}");
        }
    }

    #[test]
    fn missing_and_wrong_credentials_are_named() {
        let directory = TestDirectory::new("wrong");
        let (empty, bad, several, absent) = (
            directory.file("empty", " \n"),
            directory.file("bad", "{nonsense"),
            directory.file("several", r#"[{"clientId":"a","clientSecret":"1"},{"clientId":"b","clientSecret":"2"}]"#),
            directory.0.join("absent").to_str().unwrap().to_owned(),
        );
        for (settings, kind, says) in [
            (vec![], Kind::NoCredentials, "no credentials were found; set AMPLIENCE_CLIENT_ID"),
            (vec![("client_id", "i")], Kind::NoCredentials, "no secret for client_id i; set AMPLIENCE_CLIENT_SECRET"),
            (vec![("client_secret", "hush")], Kind::NoCredentials, "but no client_id"),
            (vec![("client_id", "i"), ("client_secret_file", empty.as_str())], Kind::NoCredentials, "is empty"),
            (vec![("client_id", "i"), ("client_secret_file", absent.as_str())], Kind::Io, "cannot read "),
            (vec![("config_file", absent.as_str())], Kind::Io, "cannot read "),
            (vec![("config_file", bad.as_str())], Kind::Config, "not a configuration of dc-cli"),
            (
                vec![("config_file", several.as_str())],
                Kind::NoCredentials,
                "several has 2 clients, and none of them is active; choose one with profile (AMPLIENCE_PROFILE) or client_id",
            ),
            (
                vec![("client_id", "i"), ("client_secret", "hush"), ("personal_access_token", "p")],
                Kind::Config,
                "are both set",
            ),
            (
                vec![("client_id", "i"), ("client_secret", "hush"), ("client_secret_file", "p")],
                Kind::Config,
                "are both set",
            ),
            (vec![("personal_access_token", "a b")], Kind::Config, "cannot be sent in a header"),
        ] {
            let error = resolve(&settings).unwrap_err();
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.to_string().contains(says), "{error}");
            assert!(!error.to_string().contains("hush"));
        }
    }

    #[test]
    fn a_program_that_has_not_loaded_its_environment_is_told_so() {
        let says = "; the program has not read its environment: it must call amp_config_load() (load() in C++) first";
        for settings in [&[][..], &[("client_id", "i")], &[("client_secret", "hush")]] {
            let error = resolve(settings).unwrap_err().to_string();
            assert!(error.ends_with(says), "{error}");
        }
        let mut config = Config::new();
        config.load_from(|name| (name == "AMPLIENCE_CLIENT_ID").then(|| "i".into())).unwrap();
        let provider =
            CredentialsProvider { files: Vec::new(), ..CredentialsProvider::new(&config.options().unwrap()).unwrap() };
        let error = provider.resolve(TIMEOUT).unwrap_err().to_string();
        assert!(error.ends_with("set AMPLIENCE_CLIENT_SECRET, client_secret, or client_secret_file"), "{error}");
    }
}
