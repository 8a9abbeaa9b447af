//! A program with set-user-ID or the like, started by a user who has fewer privileges: the environment, which is
//! that user's, has no effect. The program is tests/c/raised_privileges.c. This needs root, to make such a program
//! and to start it as another user; elsewhere the test is skipped, and reports that.
#![cfg(target_os = "linux")]

mod support;

use amp_emulator::Emulator;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{C_FLAGS, compile, copy_for_every_user, is_root, library_dir, report_skipped, require_tool, root};

/// The user who starts the program, and its group: neither root nor the owner of anything here.
const CALLER: u32 = 65534;

/// A directory that every user can enter, unlike those of a build perhaps, removed in the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("amp-raised-privileges-{}", std::process::id()));
        std::fs::create_dir(&path).unwrap();
        set_mode(&path, 0o755);
        Directory(path)
    }

    /// A subdirectory that is root's alone.
    fn closed(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir(&path).unwrap();
        set_mode(&path, 0o700);
        path
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

fn write(path: &Path, content: &str) -> String {
    std::fs::write(path, content).unwrap();
    set_mode(path, 0o600);
    path.to_str().unwrap().to_owned()
}

/// All files in a directory and its subdirectories.
fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// The program, in an environment that an attacker controls.
struct Program {
    path: PathBuf,
    environment: Vec<(&'static str, String)>,
}

impl Program {
    /// Runs it as the other user, with these settings; returns what it wrote.
    fn run(&self, settings: &[(&str, &str)]) -> String {
        let mut command = Command::new(&self.path);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.args(settings.iter().flat_map(|(name, value)| [name, value]));
        // SAFETY: what runs in the child makes three system calls, which are safe between fork and exec.
        unsafe {
            command.pre_exec(|| {
                let failed =
                    libc::setgroups(0, std::ptr::null()) != 0 || libc::setgid(CALLER) != 0 || libc::setuid(CALLER) != 0;
                if failed { Err(std::io::Error::last_os_error()) } else { Ok(()) }
            });
        }
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success(), "{}: {said}{}", output.status, String::from_utf8_lossy(&output.stderr));
        said
    }
}

#[test]
fn the_environment_has_no_effect() {
    if !is_root() {
        report_skipped("the_environment_has_no_effect needs root");
        return;
    }
    if !require_tool("cc") {
        return;
    }
    let directory = Directory::new();
    let path = directory.0.join("program");
    // The loader ignores LD_LIBRARY_PATH for such a program, too.
    copy_for_every_user(&library_dir().join("libamp_token.so"), &directory.0);
    let search = format!("-Wl,-rpath,{}", directory.0.display());
    let flags = [C_FLAGS, &[&search]].concat();
    compile("cc", &flags, &root().join("tests/c/raised_privileges.c"), &path, &[]);

    let (server, thief) = (Emulator::builder().tls(true).start().unwrap(), TcpListener::bind("127.0.0.1:0").unwrap());
    thief.set_nonblocking(true).unwrap();
    let thief_url = format!("http://{}", thief.local_addr().unwrap());
    let untouched = || assert_eq!(thief.accept().unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    let ca = server.ca_file().to_str().unwrap();
    let certificates = directory.closed("certificates");
    let ca_of_caller = write(&certificates.join("ca.pem"), server.ca_pem());
    let (secret, id, url) = (server.client_secret(), server.client_id(), server.url());
    let secret_file = write(&directory.0.join("secret"), &secret);
    // They are root's, so that only privileges decide; a superuser's store distrusts others' directories.
    let (home, runtime, cache) = (directory.closed("home"), directory.closed("runtime"), directory.closed("cache"));
    std::fs::create_dir(home.join(".amplience")).unwrap();
    write(&home.join(".amplience/dc-cli-config.json"), &format!(r#"{{"clientId":"{id}","clientSecret":"{secret}"}}"#));
    let theirs = || [&home, &runtime, &cache].map(|directory| files(directory).len());
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let mut program = Program {
        path: path.clone(),
        environment: vec![
            ("AMPLIENCE_CLIENT_ID", "id".to_owned()),
            ("AMPLIENCE_CLIENT_SECRET_FILE", secret_file.clone()),
            ("AMPLIENCE_AUTH_URL", thief_url.clone()),
            ("AMPLIENCE_STORE", "file".to_owned()),
            ("HTTPS_PROXY", thief_url.clone()),
            ("ALL_PROXY", thief_url.clone()),
            ("SSL_CERT_FILE", ca_of_caller),
            ("SSL_CERT_DIR", text(&certificates)),
            ("XDG_RUNTIME_DIR", text(&runtime)),
            ("XDG_CACHE_HOME", text(&cache)),
            ("HOME", text(&home)),
            // More than there is: no thread could be started.
            ("RUST_MIN_STACK", (1_u64 << 60).to_string()),
        ],
    };

    // Without privileges it is the user's own business.
    let said = program.run(&[]);
    assert!(said.starts_with("AT_SECURE: 0\nload: AMP_OK") && said.contains(&secret_file), "{said}");

    let refused = "AT_SECURE: 1\nload: AMP_CONFIG the environment is not read, because this program runs with \
                   raised privileges (setuid, setgid or file capabilities); set the values with amp_config_set\n\
                   get: AMP_NO_CREDENTIALS ";
    set_mode(&path, 0o4755);
    let said = program.run(&[]);
    if said.starts_with("AT_SECURE: 0") {
        report_skipped(&format!("set-user-ID has no effect in {}", directory.0.display()));
        return;
    }
    assert!(said.starts_with(refused), "{said}");
    untouched();

    // What the program sets is used, and nothing else: no proxy, no certificates, no directories.
    let own = [("client_id", id.as_str()), ("client_secret_file", &secret_file), ("auth_url", &url)];
    let said = program.run(&[&own[..], &[("ca_file", ca), ("store", "file")]].concat());
    assert!(said.ends_with("get: AMP_OK \n"), "{said}");
    assert_eq!(server.stats().token_requests, 1);
    untouched();
    assert_eq!(theirs(), [1, 0, 0]);

    // The user who starts it chooses what PATH has, so no program is run, and no profile is found.
    let marker = directory.0.join("was-run");
    let command = write(&directory.0.join("command"), &format!("#!/bin/sh\ntouch '{}'\n", marker.display()));
    set_mode(Path::new(&command), 0o755);
    let said = program.run(&[("client_id", &id), ("auth_url", &url), ("credential_command", &command)]);
    let refused_command = "get: AMP_CONFIG credential_command command is not run, because this program runs with \
                           raised privileges (setuid, setgid or file capabilities); set client_secret or client_secret_file";
    assert!(said.contains(refused_command), "{said}");
    assert!(!marker.exists());
    let said = program.run(&[("profile", "production")]);
    let unknown = "get: AMP_CONFIG profile production cannot be found: the home directory is not known; ";
    assert!(said.contains(unknown), "{said}");

    // The system's certificates are others.
    let said = program.run(&own);
    assert!(said.contains("get: AMP_TLS "), "{said}");
    for variable in ["SSL_CERT_FILE", "SSL_CERT_DIR"] {
        let mut program = Program { path: path.clone(), environment: program.environment.clone() };
        program.environment.retain(|(name, _)| *name != variable);
        let said = program.run(&own);
        assert!(said.contains("get: AMP_TLS "), "without {variable}: {said}");
    }
    assert_eq!(server.stats().token_requests, 1);

    // A proxy that the program sets is used for all hosts.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for variable in ["NO_PROXY", "no_proxy"] {
        program.environment.push((variable, "*".to_owned()));
        let proxy = format!("http://{closed}");
        let said = program.run(&[&own[..], &[("ca_file", ca), ("proxy", &proxy), ("retries", "0")]].concat());
        assert!(said.contains(&format!("get: AMP_PROXY cannot connect to the proxy {proxy}")), "{said}");
    }

    let store = directory.closed("store");
    let stored = [("ca_file", ca), ("store", "file"), ("store_dir", store.to_str().unwrap())];
    let said = program.run(&[&own[..], &stored].concat());
    assert!(said.ends_with("get: AMP_OK \n"), "{said}");
    assert!(!files(&store).is_empty(), "no thread for the store");

    set_mode(&path, 0o2755);
    let said = program.run(&[]);
    assert!(said.starts_with(refused), "set-group-ID: {said}");

    set_mode(&path, 0o755);
    let capability = Command::new("setcap").arg("cap_net_bind_service=ep").arg(&path).status();
    if capability.is_ok_and(|status| status.success()) {
        let said = program.run(&[]);
        assert!(said.starts_with(refused), "file capabilities: {said}");
    } else {
        report_skipped("file capabilities (setcap failed)");
    }
    untouched();
}
