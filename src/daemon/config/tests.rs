use std::time::Duration;

use super::*;
use crate::measure::OnForbidden;
use crate::model::Diagnostic;
use crate::plan::GatePolicy;

const WHOLE: &str = r#"
installation = "acme"
[source]
url = "ssh://git@git.example.com/acme/agents.git"
branch = "main"
interval = "30s"
timeout = "1m 30s"
ssh_key = "/etc/backstay/ssh/id_ed25519"
known_hosts = "/etc/backstay/ssh/known_hosts"
rewind = "accept"

[[target]]
environment = "production"
observe = true
kubernetes = { namespace = "agents-production", service_account = "backstay-production", context = "far", kubeconfig = "/etc/backstay/kubeconfig", allow = ["batch/CronJob"], in_flight = 4 }
prune = { max_objects = 5, max_percent = 10 }

[[target]]
environment = "staging"
kubernetes = { namespace = "agents-staging" }

[[person]]
username = "alice"
git = "Alice Example <alice@example.com>"

[http]
listen = "0.0.0.0:8740"
[webhooks.github]
secret_file = "/etc/backstay/hooks/github"
[log]
format = "json"
level = "debug"
[journal]
path = "/var/log/backstay/journal.jsonl"
[state]
folder = "/var/lib/backstay"
"#;

const SMALL: &str = r#"
[source]
url = "/srv/agents.git"
[[target]]
environment = "production"
kubernetes = { namespace = "agents" }
"#;

const HOST: &str = r#"
[source]
url = "/srv/agents.git"
[[target]]
environment = "development"
[target.host]
names = ["web-1"]
secrets = "/etc/backstay/secrets"
artifacts = "/srv/artifacts"
interpreters = { python3 = "/usr/bin/python3" }
ports = "21000-21099"
keep_old = "1m"
launcher = "systemd"
keeper = "/usr/lib/backstay/backstay-keeper"
"#;

/// The cluster of a target that has one.
fn kubernetes(target: &Target) -> &Kubernetes {
    let Place::Kubernetes(kubernetes) = target.place() else { panic!("a cluster") };
    kubernetes
}

fn host(target: &Target) -> &Host {
    let Place::Host(host) = target.place() else { panic!("a host") };
    host
}

fn parse(text: &str) -> Result<Config, Diagnostics> {
    Config::parse("backstay.toml", Some(text), &BTreeMap::new())
}

fn with(text: &str, variables: &[(&str, &str)]) -> Result<Config, Diagnostics> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Config::parse("backstay.toml", Some(text), &variables)
}

/// Every error of `text` with its snippet and hint, as one text.
fn errors(result: Result<Config, Diagnostics>) -> String {
    let Err(Diagnostics(errors)) = result else { panic!("it was taken") };
    let line = |label: &str, text: Option<String>| text.map_or(String::new(), |text| format!("\n  {label}{text}"));
    let one = |error: Diagnostic| {
        format!("{error}{}{}", line("| ", error.snippet.clone()), line("hint: ", error.hint.clone()))
    };
    errors.into_iter().map(one).collect::<Vec<_>>().join("\n")
}

#[test]
fn every_key_is_read() {
    let config = parse(WHOLE).expect("a configuration");
    assert_eq!(config.installation.as_str(), "acme");
    let remote = config.source.remote();
    assert_eq!(remote.url.to_string(), "ssh://git@git.example.com/acme/agents.git");
    assert!(matches!(&remote.auth, Auth::Ssh(key) if key.known_hosts == Path::new("/etc/backstay/ssh/known_hosts")));
    assert_eq!((remote.rewind, remote.limits.idle.as_secs()), (source::Rewind::Accept, 90));
    remote.check().expect("parts that fit each other");
    assert_eq!(config.source.timeout.0.as_secs(), 90);
    assert_eq!(config.source.rewind, Rewind::Accept);
    let production = config.target(&"production".parse().expect("a name")).expect("a target");
    assert!(production.observe);
    assert_eq!(kubernetes(production).service_account.as_ref().map(Label::as_str), Some("backstay-production"));
    assert_eq!((kubernetes(production).in_flight, production.prune.max_objects), (4, 5));
    assert_eq!(
        config.person("alice").map(|person| person.git.to_string()).as_deref(),
        Some("Alice Example <alice@example.com>")
    );
    assert_eq!(config.http.listen.0.port(), 8740);
    assert_eq!(config.log.format, LogFormat::Json);
}

#[test]
fn what_is_not_said_has_a_default() {
    let config = parse(SMALL).expect("a configuration");
    assert_eq!((config.source.branch.as_str(), config.source.interval.0.as_secs()), ("main", 30));
    assert_eq!(config.source.rewind, Rewind::Refuse);
    assert_eq!(config.http.listen.0.to_string(), "127.0.0.1:8740");
    assert_eq!(config.journal.path, Path::new("stdout"));
    assert_eq!((config.target[0].prune.max_objects, kubernetes(&config.target[0]).in_flight), (25, 16));
    assert_eq!(config.log.format.to_string(), "auto");
}

#[test]
fn a_host_is_a_place_and_every_key_of_it_is_read() {
    let config = parse(HOST).expect("a configuration");
    let at = host(&config.target[0]);
    assert!(at.is_served_by("web-1") && !at.is_served_by("web-2"));
    assert_eq!(at.secrets.as_deref(), Some(Path::new("/etc/backstay/secrets")));
    assert_eq!(at.artifacts.as_deref(), Some(Path::new("/srv/artifacts")));
    assert_eq!(at.interpreters["python3"], Path::new("/usr/bin/python3"));
    assert_eq!((at.ports.first(), at.ports.last(), at.ports.ports().count()), (21000, 21099, 100));
    assert_eq!(at.keep_old.0.as_secs(), 60);
    assert_eq!((at.launcher, Host::default().launcher), (Launcher::Systemd, Launcher::Fork));
    assert_eq!(at.keeper.as_deref(), Some(Path::new("/usr/lib/backstay/backstay-keeper")));
    assert_eq!((config.target[0].namespace(), config.target[0].gate()), ("development", GatePolicy::of("development")));

    let small = parse("[source]\nurl = \"/a\"\n[[target]]\nenvironment = \"dev\"\nhost = {}\n").expect("valid");
    let at = host(&small.target[0]);
    assert_eq!(*at, Host::default());
    assert_eq!((at.ports.to_string().as_str(), at.keep_old.0.as_secs()), ("20000-20999", 300));
    assert!(at.is_served_by("anything"));
    assert_eq!(small.target[0].in_flight(), 16);
}

#[test]
fn a_host_comes_from_variables_alone() {
    let config = with(
        SMALL,
        &[
            ("BACKSTAY_TARGET_1_ENVIRONMENT", "development"),
            ("BACKSTAY_TARGET_1_HOST_PORTS", "21000-21001"),
            ("BACKSTAY_TARGET_1_HOST_NAMES", "web-1, web-2"),
            ("BACKSTAY_TARGET_1_HOST_INTERPRETERS", "python3=/usr/bin/python3, sh = /bin/sh"),
        ],
    )
    .expect("a configuration");
    let at = host(&config.target[1]);
    assert_eq!((at.ports.to_string().as_str(), at.names.len()), ("21000-21001", 2));
    assert_eq!(at.interpreters["sh"], Path::new("/bin/sh"));
    let wrong = |value| errors(with(SMALL, &[("BACKSTAY_TARGET_0_HOST_INTERPRETERS", value)]));
    assert!(wrong("python3").contains("`name=value, name=value` is expected"));
    let relative = "[source]\nurl = \"/a\"\n[[target]]\nenvironment = \"dev\"\nhost = {}\n";
    let relative = errors(with(relative, &[("BACKSTAY_TARGET_0_HOST_INTERPRETERS", "sh=sh")]));
    assert!(relative.contains("`target.host.interpreters.sh` is not an absolute path"), "{relative}");
}

#[test]
fn a_target_has_exactly_one_place_and_a_host_keeps_to_its_own() {
    let places = r#"
[source]
url = "/srv/agents.git"
[[target]]
environment = "nowhere"
[[target]]
environment = "both"
host = {}
kubernetes = { namespace = "both" }
"#;
    insta::assert_snapshot!(errors(parse(places)));
    let text = r#"
[source]
url = "/srv/agents.git"
[[target]]
environment = "wrong"
[target.host]
secrets = "secrets"
artifacts = "/srv/backstay/artifacts"
keeper = "backstay-keeper"
interpreters = { "bin/sh" = "/bin/sh", python3 = "python3" }
[state]
folder = "/srv/backstay"
"#;
    insta::assert_snapshot!(errors(parse(text)));
    for ports in ["20000", "20999-20000", "80-90", "20000-70000", "a-b"] {
        let shown = errors(parse(&HOST.replace("21000-21099", ports)));
        assert!(shown.contains("`target.host.ports` cannot be used"), "{shown}");
    }
    let near = errors(parse(&HOST.replace("keep_old", "keepold")));
    assert!(near.contains("did you mean `keep_old`?"), "{near}");
}

#[test]
fn every_wrong_key_is_named_with_line_column_and_the_nearest() {
    let text = r#"
[source]
ulr = "/srv/agents.git"
interval = 30
rewind = "ask"
colour = "blue"
[[target]]
environment = "Production"
kubernetes = { namespace = "agents", in_flight = 0 }
[htpp]
listen = "localhost:8740"
[http]
listen = "localhost:8740"
"#;
    insta::assert_snapshot!(errors(parse(text)));
}

#[test]
fn what_is_missing_says_how_to_add_it() {
    insta::assert_snapshot!(errors(parse("[source]\nbranch = \"main\"\n[[target]]\nenvironment = \"production\"\n")));
}

#[test]
fn what_is_not_delivered_is_refused_plainly() {
    let text = "[source]\nurl = \"/srv/a\"\n[source.verify]\nssh_allowed_signers = \"/a\"\nopenpgp = \"/b\"\n[[target]]\nenvironment = \"dev\"\nkubernetes = { namespace = \"dev\" }\n[metrics.main]\nprometheus = { url = \"http://p\" }\n";
    insta::assert_snapshot!(errors(parse(text)));
}

#[test]
fn verification_names_somebody_or_is_not_there() {
    let source = |verify: &str| {
        let target = "[[target]]\nenvironment = \"dev\"\nkubernetes = { namespace = \"dev\" }\n";
        parse(&format!("[source]\nurl = \"/srv/a\"\nsigning_key = \"/k\"\n{verify}{target}"))
    };
    let config = source("[source.verify]\nssh_allowed_signers = \"/a\"\n").expect("valid");
    assert_eq!(config.source.verify.ssh_allowed_signers.as_deref(), Some(Path::new("/a")));
    assert!(config.source.verifier().is_err_and(|error| error.to_string().contains("`/a`")), "there is no such file");
    let none = source("").expect("valid");
    assert!(none.source.verifier().is_ok_and(|verifier| !verifier.is_strict()));
    let empty = errors(source("[source.verify]\n"));
    assert!(empty.contains("backstay.toml:4:9") && empty.contains("add `ssh_allowed_signers`"), "{empty}");
    let near = errors(source("[source.verify]\nssh_alowed_signers = \"/a\"\n"));
    assert!(near.contains("did you mean `ssh_allowed_signers`?"), "{near}");
}

#[test]
fn text_that_is_not_toml_is_named_where_it_breaks() {
    insta::assert_snapshot!(errors(parse("[source]\nurl = \"/srv/agents.git\nbranch = 1\n")));
}

#[test]
fn a_secret_in_the_file_is_refused_and_never_shown() {
    for text in [
        "[source]\nurl = \"https://git.example.com/a.git\"\ntoken = \"hunter2\"\n[[target]]\nenvironment = \"a\"\nkubernetes = { namespace = \"a\" }\n",
        "[source]\nurl = \"https://user:hunter2@git.example.com/a.git\"\n[[target]]\nenvironment = \"a\"\nkubernetes = { namespace = \"a\" }\n",
        "[source]\nurl = \"/a\"\npassword = hunter2\n",
        "[webhooks.github]\nsecret = \"hunter2\"\n",
    ] {
        let shown = errors(parse(text));
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}

#[test]
fn secrets_come_from_variables_and_files_and_are_never_shown() {
    let https = SMALL.replace("/srv/agents.git", "https://git.example.com/a.git");
    let config = with(&https, &[("BACKSTAY_SOURCE_TOKEN", "hunter2"), ("BACKSTAY_WEBHOOKS_GITHUB_SECRET", "hunter3")])
        .expect("a configuration");
    assert!(matches!(config.source.remote().auth, Auth::Token(source::Secret::Value(value)) if value == "hunter2"));
    assert!(!format!("{config:?}").contains("hunter"), "{config:?}");
    let secrets = config.webhooks.secrets().expect("secrets");
    assert_eq!(secrets.github.expect("one").expose(), "hunter3");
    assert!(secrets.gitlab.is_none());

    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("secret");
    std::fs::write(&file, "hunter4\n").expect("written");
    let name = file.display().to_string();
    let config = with(&https, &[("BACKSTAY_WEBHOOKS_GITEA_SECRET_FILE", &name)]).expect("a configuration");
    assert_eq!(config.webhooks.secrets().expect("secrets").gitea.expect("one").expose(), "hunter4");
    std::fs::write(&file, "\n").expect("written");
    let error = config.webhooks.secrets().expect_err("an empty secret opens the door to everyone");
    assert!(matches!(error, ConfigError::EmptySecret { .. }) && error.hint().is_some());
    std::fs::remove_file(&file).expect("removed");
    assert!(matches!(config.webhooks.secrets(), Err(ConfigError::SecretFile { .. })));
}

#[test]
fn a_variable_wins_over_the_file() {
    let config = with(
        SMALL,
        &[
            ("BACKSTAY_SOURCE_URL", "https://git.example.com/a.git"),
            ("BACKSTAY_TARGET_0_KUBERNETES_NAMESPACE", "elsewhere"),
            ("BACKSTAY_TARGET_0_KUBERNETES_ALLOW", "batch/CronJob, batch/Job"),
            ("BACKSTAY_TARGET_0_OBSERVE", "true"),
            ("BACKSTAY_TARGET_1_ENVIRONMENT", "staging"),
            ("BACKSTAY_TARGET_1_KUBERNETES_NAMESPACE", "agents-staging"),
            ("BACKSTAY_TARGET_1_KUBERNETES_IN_FLIGHT", "3"),
            ("BACKSTAY_HTTP_LISTEN", "[::]:80"),
        ],
    )
    .expect("a configuration");
    assert_eq!(config.source.url.0.to_string(), "https://git.example.com/a.git");
    assert_eq!(config.target.len(), 2);
    assert_eq!(kubernetes(&config.target[0]).namespace.as_str(), "elsewhere");
    let allowed = ["batch/CronJob", "batch/Job"].map(|text| text.parse().expect("an allowance"));
    assert_eq!(kubernetes(&config.target[0]).allow, allowed);
    assert!(config.target[0].observe);
    assert_eq!(kubernetes(&config.target[1]).in_flight, 3);
    assert_eq!(config.http.listen.0.to_string(), "[::]:80");
}

#[test]
fn variables_alone_are_enough() {
    let variables: BTreeMap<String, String> = [
        ("BACKSTAY_SOURCE_URL", "/srv/agents.git"),
        ("BACKSTAY_TARGET_0_ENVIRONMENT", "production"),
        ("BACKSTAY_TARGET_0_KUBERNETES_NAMESPACE", "agents"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .into();
    let nowhere = Path::new("/nonexistent/backstay.toml");
    assert!(Config::load(nowhere, &variables).is_ok());
    let error = Config::load(nowhere, &BTreeMap::new()).expect_err("nothing there");
    assert!(matches!(error, ConfigError::Missing { .. }), "{error}");
    assert!(error.hint().is_some_and(|hint| hint.contains("--config")));
}

#[test]
fn a_folder_or_a_huge_file_is_no_configuration() {
    let folder = tempfile::tempdir().expect("a folder");
    assert!(matches!(Config::load(folder.path(), &BTreeMap::new()), Err(ConfigError::Read { .. })));
    let huge = folder.path().join("huge");
    std::fs::write(&huge, vec![b'#'; 1024 * 1024 + 1]).expect("written");
    assert!(matches!(Config::load(&huge, &BTreeMap::new()), Err(ConfigError::Read { .. })));
}

#[test]
fn a_wrong_variable_is_named() {
    let wrong = with(
        SMALL,
        &[
            ("BACKSTAY_SOURCE_ULR", "x"),
            ("BACKSTAY_TARGET_5_ENVIRONMENT", "x"),
            ("BACKSTAY_TARGET_0_OBSERVE", "yes"),
            ("BACKSTAY_HTTP_PORT_NUMBER", "80"),
            ("BACKSTAY_SOURCE_INTERVAL", "soon"),
            ("BACKSTAY_TARGET_0_KUBERNETES_IN_FLIGHT", "many"),
        ],
    );
    insta::assert_snapshot!(errors(wrong));
}

#[test]
fn variables_that_are_not_ours_are_let_be() {
    let others = [
        ("BACKSTAY_CONFIG", "/x"),
        ("BACKSTAY_RELEASE", "r-0"),
        ("BACKSTAY_SERVICE_HOST", "10.0.0.1"),
        ("BACKSTAY_SERVICE_PORT_HTTP", "8740"),
        ("BACKSTAY_PORT", "tcp://10.0.0.1:8740"),
        ("BACKSTAY_PORT_8740_TCP_ADDR", "10.0.0.1"),
        ("BACKSTAY_WEBHOOKS_SERVICE_HOST", "10.0.0.1"),
        ("BACKSTAY_SOMETHING_ELSE", "x"),
        ("PATH", "/bin"),
    ];
    assert!(with(SMALL, &others).is_ok());
}

#[test]
fn parts_that_do_not_fit_each_other_are_refused() {
    let ssh = SMALL.replace("/srv/agents.git", "git@git.example.com:acme/agents.git");
    let shown = errors(parse(&ssh));
    assert!(
        shown.contains("`source.ssh_key` is missing") && shown.contains("`source.known_hosts` is missing"),
        "{shown}"
    );

    let twice = format!("{SMALL}[[target]]\nenvironment = \"production\"\nkubernetes = {{ namespace = \"agents\" }}\n");
    insta::assert_snapshot!(errors(parse(&twice)));

    let both = SMALL.replace("[[target]]", "token_file = \"/a\"\npassword_file = \"/b\"\n[[target]]");
    assert!(errors(parse(&both)).contains("exclude each other"));
    assert!(errors(parse("target = []\n[source]\nurl = \"/a\"\n")).contains("no environment is bound"));
}

#[test]
fn remotes_are_absolute_and_hold_no_password() {
    for good in ["ssh://git@h/p", "git@h:p", "https://h/p", "http://h:80/p", "/srv/p", "file:///srv/p"] {
        assert!(good.parse::<Remote>().is_ok(), "{good}");
    }
    for bad in ["", "h", "p/q", "./p", "git://h/p", "https:///p", "file://p", "https://u:p@h/p", "a\nb"] {
        assert!(bad.parse::<Remote>().is_err(), "{bad}");
    }
}

#[test]
fn the_way_in_fits_the_address() {
    let https = SMALL.replace("/srv/agents.git\"", "https://git.example.com/a.git\"\nusername = \"bot\"");
    let basic = with(&https, &[("BACKSTAY_SOURCE_PASSWORD", "hunter2")]).expect("a configuration").source.remote();
    assert!(matches!(&basic.auth, Auth::Basic { username, .. } if username == "bot"));
    assert!(matches!(parse(SMALL).expect("a configuration").source.remote().auth, Auth::None));
    let nobody = errors(parse(&https.replace("username = \"bot\"", "password_file = \"/p\"")));
    assert!(nobody.contains("`source.username` is missing"), "{nobody}");
    let key = errors(parse(&https.replace("username = \"bot\"", "ssh_key = \"/k\"")));
    assert!(key.contains("`source.ssh_key` is for SSH"), "{key}");
    let ssh = "git@h:p\"\nssh_key = \"/k\"\nknown_hosts = \"/h\"\ntoken_file = \"/t\"";
    let token = errors(parse(&SMALL.replace("/srv/agents.git\"", ssh)));
    assert!(token.contains("`source.token_file` is for HTTPS"), "{token}");
}

#[test]
fn spans_labels_and_people_are_checked() {
    assert!("500ms".parse::<Period>().is_err() && "25h".parse::<Period>().is_err() && "-1m".parse::<Period>().is_err());
    assert!("a-b".parse::<Label>().is_ok() && "-a".parse::<Label>().is_err() && "A".parse::<Label>().is_err());
    assert!("".parse::<Label>().is_err() && "a".repeat(64).parse::<Label>().is_err());
    assert!("Alice <a@b>".parse::<GitIdentity>().is_ok());
    for bad in ["Alice", "<a@b>", "Alice <>", "Alice <a b>", "A\u{7} <a@b>"] {
        assert!(bad.parse::<GitIdentity>().is_err(), "{bad}");
    }
}

#[test]
fn the_schema_takes_what_the_reader_takes() {
    let schema = schema();
    let validator = jsonschema::validator_for(&schema).expect("a JSON Schema");
    let json = |text: &str| serde_json::to_value(text.parse::<toml::Table>().expect("TOML")).expect("JSON");
    for good in [WHOLE, SMALL, HOST] {
        assert!(validator.is_valid(&json(good)), "{:?}", validator.iter_errors(&json(good)).next());
    }
    for bad in [
        "[source]\nurl = \"/a\"\n",
        "[source]\nulr = \"/a\"\n[[target]]\nenvironment = \"a\"\nkubernetes = { namespace = \"a\" }\n",
        "[source]\nurl = \"/a\"\ntoken = \"x\"\n[[target]]\nenvironment = \"a\"\nkubernetes = { namespace = \"a\" }\n",
        "[source]\nurl = \"/a\"\nrewind = \"ask\"\n[[target]]\nenvironment = \"a\"\nkubernetes = { namespace = \"a\" }\n",
        "[source]\nurl = \"/a\"\n[[target]]\nenvironment = \"a\"\nkubernetes = { namespace = \"a\", in_flight = 0 }\n",
        "[source]\nurl = \"/a\"\n[[target]]\nenvironment = \"a\"\n",
        "[source]\nurl = \"/a\"\n[[target]]\nenvironment = \"a\"\nhost = {}\nkubernetes = { namespace = \"a\" }\n",
        "[source]\nurl = \"/a\"\n[[target]]\nenvironment = \"a\"\nhost = { interpreters = { python3 = 3 } }\n",
    ] {
        assert!(parse(bad).is_err(), "{bad}");
        assert!(!validator.is_valid(&json(bad)), "{bad}");
    }
}

#[test]
fn every_key_has_a_variable() {
    let names: Vec<String> = variables().into_iter().map(|(name, _)| name).collect();
    for name in [
        "BACKSTAY_SOURCE_URL",
        "BACKSTAY_TARGET_{n}_KUBERNETES_NAMESPACE",
        "BACKSTAY_TARGET_{n}_HOST_INTERPRETERS",
        "BACKSTAY_WEBHOOKS_GENERIC_SECRET",
        "BACKSTAY_HTTP_LISTEN",
    ] {
        assert!(names.iter().any(|known| known == name), "{name}");
    }
}

#[test]
fn what_is_allowed_opens_the_gate_that_far() {
    let allow = r#"allow = ["Secret", "kafka.strimzi.io/KafkaTopic", "hostNamespaces", "hostPaths", "privileged", "capability:SYS_PTRACE", "service:LoadBalancer"]"#;
    let text = SMALL.replace("\"agents\" }", &format!("\"agents\", service_account = \"writer\", {allow} }}"));
    let config = parse(&text).expect("a configuration");
    let (gate, usual) = (config.target[0].gate(), GatePolicy::of("agents"));
    let kinds: Vec<String> = gate.kinds.difference(&usual.kinds).map(ToString::to_string).collect();
    assert_eq!(kinds, ["Secret", "kafka.strimzi.io/KafkaTopic"]);
    assert!(gate.host_namespaces && gate.host_paths && gate.privileged);
    assert!(gate.capabilities.contains("SYS_PTRACE") && gate.service_types.contains("LoadBalancer"));
    assert!(gate.accounts.contains("writer"));
    for bad in ["", "secret", "/Secret", "a b/Secret", "capability:", "node:all", "hostpaths"] {
        assert!(bad.parse::<Allowance>().is_err(), "{bad}");
    }
    let wrong = errors(parse(&text.replace("hostPaths", "hostPath")));
    assert!(wrong.contains("`target.kubernetes.allow` cannot be used: `hostPath` is none of"), "{wrong}");
}

#[test]
fn what_compose_gives_to_the_daemon_is_a_configuration_of_it() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/compose");
    let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap();
    let config = Config::parse("backstay.toml", Some(&read("backstay.toml")), &BTreeMap::new()).unwrap();
    let compose = read("compose.yaml");
    let Place::Host(host) = config.target[0].place() else { panic!("a host") };
    for path in [host.secrets.as_deref().unwrap(), &config.state.folder, Path::new("/srv/agents.git")] {
        assert!(compose.contains(&path.display().to_string()), "compose.yaml mounts {}", path.display());
    }
    let proxy = config.proxy.unwrap();
    assert!(proxy.table.starts_with(&config.state.folder) && proxy.control.starts_with(&config.state.folder));
}

#[test]
fn pull_requests_are_opened_where_the_repository_is() {
    use crate::daemon::write_back::Host;
    let with = |url: &str, more: &str| {
        let target = "[[target]]\nenvironment = \"dev\"\nkubernetes = { namespace = \"dev\" }\n";
        let ssh = if url.starts_with("ssh") { "ssh_key = \"/k\"\nknown_hosts = \"/h\"\n" } else { "" };
        parse(&format!("[source]\nurl = \"{url}\"\n{ssh}[source.pull_request]\n{more}{target}"))
    };
    let (https, ssh) = ("https://git.example.com/acme/agents.git", "ssh://git@git.example.com:2222/acme/agents.git");
    let token = "token_file = \"/t\"\n";
    for (url, forge, host, api) in [
        (https, "github", Host::GitHub, "https://git.example.com/api/v3"),
        (ssh, "gitlab", Host::GitLab, "https://git.example.com/api/v4"),
        (https, "gitea", Host::Gitea, "https://git.example.com/api/v1"),
        ("https://github.com/acme/agents", "github", Host::GitHub, "https://api.github.com"),
    ] {
        let config = with(url, &format!("forge = \"{forge}\"\n{token}")).expect("valid");
        let known = config.source.forge().expect("it fits").expect("one");
        assert_eq!((known.host, &*known.api, &*known.repository), (host, api, "acme/agents"));
    }
    let named = "forge = \"gitea\"\napi = \"http://127.0.0.1:3000/api/v1/\"\nrepository = \"a/b\"\n";
    let known = with("/srv/agents.git", &format!("{named}{token}")).expect("valid").source.forge();
    assert_eq!(known.expect("it fits").expect("one").api, "http://127.0.0.1:3000/api/v1");
    assert!(parse(SMALL).expect("valid").source.forge().is_ok_and(|none| none.is_none()));
    assert!(!parse(SMALL).expect("valid").source.notes, "notes are written where somebody asks for them");

    for (url, more, place, hint) in [
        (https, "forge = \"github\"\n", "backstay.toml:3:9", "add `token_file`"),
        ("/srv/a", "forge = \"gitea\"\ntoken_file = \"/t\"\n", "backstay.toml:3:9", "add `api = "),
        ("/srv/a", "forge = \"gitea\"\napi = \"https://h/\"\ntoken_file = \"/t\"\n", "backstay.toml:3:9", "owner/name"),
        (
            https,
            "forge = \"github\"\napi = \"https://u:p@h\"\ntoken_file = \"/t\"\n",
            "backstay.toml:5:7",
            "without a password",
        ),
        (
            https,
            "forge = \"github\"\nrepository = \"agents\"\ntoken_file = \"/t\"\n",
            "backstay.toml:5:14",
            "owner/name",
        ),
        (https, "forge = \"bitbucket\"\n", "backstay.toml:4:9", "github"),
    ] {
        let told = errors(with(url, more));
        assert!(told.contains(place) && told.contains(hint), "{told}");
    }
}

#[test]
fn a_gate_is_an_address_with_a_name_that_a_step_can_use() {
    let with = |more: &str| parse(&format!("{SMALL}{more}"));
    let config = with(
        "[gates.load_test]\nurl = \"https://ci.example.com/gate/\"\ntoken_file = \"/t\"\ntimeout = \"2s\"\non_forbidden = \"hold\"\n[gates.load_test.headers]\nx-team = \"support\"\n[gates.b]\nurl = \"http://g\"\n",
    )
    .expect("valid");
    let gate = &config.gates["load_test"];
    assert_eq!((gate.url.as_str(), gate.timeout.0), ("https://ci.example.com/gate", Duration::from_secs(2)));
    assert_eq!((gate.on_forbidden, &*gate.headers["x-team"]), (OnForbidden::Hold, "support"));
    assert_eq!(gate.token_file.as_deref(), Some(Path::new("/t")));
    let other = &config.gates["b"];
    assert_eq!((other.on_forbidden, other.timeout.0), (OnForbidden::Abort, Duration::from_secs(10)));
    let loose = super::Config::parse(
        "backstay.toml",
        Some(&format!("{SMALL}[gates.load]\nurl = \"http://g\"\n")),
        &BTreeMap::from([("BACKSTAY_GATES_LOAD_TIMEOUT".to_owned(), "3s".to_owned())]),
    );
    assert_eq!(loose.expect("valid").gates["load"].timeout.0, Duration::from_secs(3));
    let told = [
        "[gates.load]\n",
        "[gates.load]\nurl = \"ci/gate\"\n",
        "[gates.load]\nurl = \"https://bot:hunter2@ci/gate\"\n",
        "[gates.load]\nurl = \"http://g\"\ntimeout = \"1h\"\n",
        "[gates.load]\nurl = \"http://g\"\non_forbidden = \"abot\"\n",
        "[gates.load]\nurl = \"http://g\"\ntokenfile = \"/t\"\n",
        "[gates.\"-load\"]\nurl = \"http://g\"\n",
        "[gates]\nload = \"http://g\"\n",
    ]
    .map(|bad| errors(with(bad)));
    insta::assert_snapshot!(told.join("\n---\n"));
}
