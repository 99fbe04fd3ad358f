//! SSH, against a real `sshd`: keys, host keys, pushes.

use backstay::source::{Auth, Followed, Secret, SourceConfig, SourceError, SshKey};

use crate::git::{GitServer, Ssh, TestRepo};
use crate::{checkout, config, main_and_tags, mirror, skipped, text};

fn server(repo: &TestRepo) -> Option<GitServer> {
    let server = GitServer::ssh(repo.parent());
    if server.is_none() {
        skipped("there is no /usr/sbin/sshd here (Debian: openssh-server)");
    }
    server
}

fn keys(server: &GitServer) -> &Ssh {
    match server {
        GitServer::Ssh(ssh) => ssh,
        GitServer::Http(_) => panic!("not SSH"),
    }
}

fn with(server: &GitServer, key: SshKey) -> SourceConfig {
    SourceConfig { auth: Auth::Ssh(key), ..config(server.url("agents.git")) }
}

#[test]
fn a_mirror_over_ssh() {
    let repo = TestRepo::with_one_commit();
    let Some(server) = server(&repo) else { return };
    let ssh = keys(&server);
    let user = mirror(with(&server, ssh.key("user")));
    assert!(user.poll(&main_and_tags()).expect("a poll").fetched);
    let tip = repo.commit(&[("a.txt", "two\n")], "second");
    assert!(user.poll(&main_and_tags()).expect("a poll").fetched);
    assert_eq!(text(&checkout(&user, &tip), "a.txt").as_deref(), Some("two\n"));

    let passphrase = Some(Secret::Value("pass phrase".to_owned()));
    let locked = mirror(with(&server, SshKey { passphrase, ..ssh.key("locked") }));
    assert!(locked.poll(&main_and_tags()).is_ok());

    let mut draft = user.store().draft(&tip).expect("a draft");
    let edit = backstay::source::Edit::Write { path: "b.txt".to_owned(), bytes: b"b\n".to_vec() };
    draft.edit(&[edit]).expect("an edit");
    let person = "Backstay <backstay@example.com>".parse().expect("a person");
    let commit = draft.commit(&person, &person, backstay::model::Timestamp::UNIX_EPOCH, "by us\n").expect("a commit");
    user.push(&commit, "main", Some(&tip)).expect("a push");
    assert_eq!(repo.id("main"), commit);
}

#[test]
fn a_stranger_is_not_let_in() {
    let repo = TestRepo::with_one_commit();
    let Some(server) = server(&repo) else { return };
    let ssh = keys(&server);
    let error = mirror(with(&server, ssh.key("stranger"))).poll(&main_and_tags()).expect_err("a stranger");
    assert!(matches!(error, SourceError::Refused { .. }), "{error:?}");
    let wrong = SshKey { passphrase: Some(Secret::Value("no".to_owned())), ..ssh.key("locked") };
    let error = mirror(with(&server, wrong)).poll(&main_and_tags()).expect_err("a wrong pass phrase");
    assert!(matches!(error, SourceError::Refused { .. }), "{error:?}");
}

#[test]
fn a_host_key_is_pinned() {
    let repo = TestRepo::with_one_commit();
    let Some(server) = server(&repo) else { return };
    let ssh = keys(&server);
    let poll = || mirror(with(&server, ssh.key("user"))).poll(&Followed::branch("main"));

    std::fs::write(ssh.known_hosts(), "").expect("known hosts");
    let error = poll().expect_err("an unknown host");
    let SourceError::HostKey { fingerprint, revoked: false, .. } = &error else { panic!("{error:?}") };
    assert!([ssh.fingerprint("host"), ssh.fingerprint("host_ecdsa")].contains(fingerprint), "{error}");
    let hint = error.hint().expect("a way out");
    assert!(hint.contains("ssh-keyscan") && hint.contains(&*ssh.known_hosts().to_string_lossy()), "{hint}");

    // Whichever of its keys is known, that one is asked for.
    for key in ["host", "host_ecdsa"] {
        ssh.know(&[key]);
        assert!(poll().is_ok(), "{key}");
    }

    // Another key than the host's, under its name.
    let stranger = std::fs::read_to_string(ssh.key("stranger").key.with_extension("pub")).expect("a key");
    let port = server.url("agents.git").to_string();
    let port = port.rsplit(':').next().and_then(|rest| rest.split('/').next()).expect("a port").to_owned();
    std::fs::write(ssh.known_hosts(), format!("[127.0.0.1]:{port} {stranger}")).expect("known hosts");
    assert!(matches!(poll(), Err(SourceError::HostKey { .. })));

    ssh.know(&["host"]);
    let known = std::fs::read_to_string(ssh.known_hosts()).expect("known hosts");
    std::fs::write(ssh.known_hosts(), format!("{known}@revoked {known}")).expect("known hosts");
    let error = poll().expect_err("a revoked key");
    assert!(matches!(error, SourceError::HostKey { revoked: true, .. }), "{error:?}");

    std::fs::remove_file(ssh.known_hosts()).expect("known hosts");
    assert!(matches!(poll(), Err(SourceError::File { .. })));
}

#[test]
fn a_repository_that_is_not_there() {
    let repo = TestRepo::with_one_commit();
    let Some(server) = server(&repo) else { return };
    let config = SourceConfig { url: server.url("other.git"), ..with(&server, keys(&server).key("user")) };
    let error = mirror(config).poll(&main_and_tags()).expect_err("no repository");
    assert!(matches!(error, SourceError::NoRepository { .. } | SourceError::Remote { .. }), "{error:?}");
}
