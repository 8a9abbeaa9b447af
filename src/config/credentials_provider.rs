//! Where credentials come from. The first source that has credentials is used:
//!
//! | source | what is read |
//! | --- | --- |
//! | settings that were set | `client_id` with `client_secret` or `client_secret_file`; `personal_access_token` or `personal_access_token_file` |
//! | the environment, if it was loaded | the same, as `AMPLIENCE_CLIENT_ID` and so on; `AMPLIENCE_PAT` |
//! | `config_file`, else, if the environment was loaded, `~/.amplience/dc-cli-config.json` | `patToken`, else `clientId` and `clientSecret` |
//! | then `~/.amplience/hubs.json` | the active hub, or the only one |
//!
//! The first two are read when the configuration is made. Files are read here, each time that credentials are
//! needed, so that a secret that was rotated on disk is found. Reading them ends by the deadline of the call.

use super::config::Origin;
use super::credentials::Credentials;
use super::dc_cli::from_dc_cli;
use super::environment::Environment;
use super::file_access::report_if_readable_by_others;
use super::options::{CredentialOptions, Options};
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
const DC_CLI_FILES: [&str; 2] = [".amplience/dc-cli-config.json", ".amplience/hubs.json"];

/// Finds credentials in the settings and files.
#[derive(Clone, Debug)]
pub struct CredentialsProvider {
    options: CredentialOptions,
    /// Files in dc-cli's format, in the order in which they are read.
    files: Vec<PathBuf>,
    log: Log,
}

impl CredentialsProvider {
    /// Checks that the settings name one kind of credentials; reads no file.
    pub fn new(options: &Options) -> Result<Self> {
        let log = options.log.clone();
        let environment = &options.environment;
        let options = options.credentials.clone();
        let files = match (&options.config_file, options.environment_loaded, home(environment)) {
            (Some(file), ..) => vec![file.clone()],
            (None, true, Some(home)) => DC_CLI_FILES.map(|file| home.join(file)).to_vec(),
            _ => Vec::new(),
        };
        let client =
            options.client_id.is_some() || options.client_secret.is_some() || options.client_secret_file.is_some();
        let personal = options.personal_access_token.is_some() || options.personal_access_token_file.is_some();
        let both = [
            (
                "client_secret",
                options.client_secret.is_some(),
                "client_secret_file",
                options.client_secret_file.is_some(),
            ),
            (
                "personal_access_token",
                options.personal_access_token.is_some(),
                "personal_access_token_file",
                options.personal_access_token_file.is_some(),
            ),
            ("a personal access token", personal, "client_id or client_secret", client),
        ];
        match both.iter().find(|(_, one, _, other)| *one && *other) {
            Some((one, _, other, _)) => Err(Error::new(Kind::Config, format!("{one} and {other} are both set"))
                .with_hint("unset one of them, in the program or in its environment")),
            None => Ok(CredentialsProvider { options, files, log }),
        }
    }

    /// Whether the credentials may have changed since they were read.
    pub fn reads_files(&self) -> bool {
        let CredentialOptions { client_id, client_secret, personal_access_token, .. } = &self.options;
        let set = personal_access_token.is_some() || (client_id.is_some() && client_secret.is_some());
        !set
    }

    /// Finds the credentials, and describes where they are from. Takes at most `timeout`.
    pub fn resolve(&self, timeout: Duration) -> Result<(Credentials, String)> {
        let deadline = IoDeadline::after(timeout);
        let options = &self.options;
        let from_settings = || match options.origin {
            Some(Origin::Environment(variable)) => variable.to_owned(),
            _ => "the settings".to_owned(),
        };
        if let Some(token) = &options.personal_access_token {
            return Ok((
                Credentials::from_personal_access_token(token.expose(), "personal_access_token", &self.log)?,
                from_settings(),
            ));
        }
        if let Some(file) = &options.personal_access_token_file {
            let (text, origin) = (self.read_secret(file, "personal_access_token_file", deadline)?, display_path(file));
            return Ok((Credentials::from_personal_access_token(&text, &origin, &self.log)?, origin));
        }
        match (&options.client_id, &options.client_secret, &options.client_secret_file) {
            (Some(id), Some(secret), _) => {
                let credentials = Credentials::Client { id: id.clone(), secret: secret.clone() };
                Ok((credentials, from_settings()))
            }
            (Some(id), None, Some(file)) => {
                let secret = Secret::from(self.read_secret(file, "client_secret_file", deadline)?.as_str());
                Ok((Credentials::Client { id: id.clone(), secret }, display_path(file)))
            }
            (None, secret, file) if secret.is_some() || file.is_some() => {
                Err(Error::new(Kind::NoCredentials, "a client secret is set, but no client_id")
                    .with_hint(self.hint("set AMPLIENCE_CLIENT_ID, or client_id")))
            }
            _ => self.find_in_files(deadline),
        }
    }

    /// Searches dc-cli's files, only for `client_id` if it is set.
    fn find_in_files(&self, deadline: IoDeadline) -> Result<(Credentials, String)> {
        let must_exist = self.options.config_file.is_some();
        for file in &self.files {
            let Some(text) = self.read(file, "config_file", must_exist, deadline)? else { continue };
            let found = from_dc_cli(&text, &display_path(file), self.options.client_id.as_deref(), &self.log)?;
            if let Some(credentials) = found {
                return Ok((credentials, display_path(file)));
            }
        }
        if let Some(id) = &self.options.client_id {
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
        let text = std::str::from_utf8(&bytes).map_err(|_| {
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

/// The user's home directory.
fn home(environment: &Environment) -> Option<PathBuf> {
    let variable = if cfg!(windows) { "USERPROFILE" } else { "HOME" };
    environment.get(variable).filter(|home| !home.is_empty()).map(PathBuf::from)
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
        assert!(credentials_provider.reads_files());
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
                "several has 2 clients, and none of them is active; choose one with client_id",
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
