//! Every refusal, as a person reads it.

use backstay::desired::{consents, environment, environments};
use backstay::source::{MemoryTree, Tree, TreeError};
use insta::assert_snapshot;

use crate::repository::{DIGEST, agent, at, good, name, resolved, small, told, with_image, wrong};

#[path = "refused_more.rs"]
mod more;

/// What is wrong with the agent `a` when these lines are in its `spec`.
fn spec(lines: &str) -> String {
    wrong(&small().with("agents/a/agent.yaml", with_image(lines)))
}

/// The same, with further files.
fn with(lines: &str, files: &[(&str, &str)]) -> String {
    let tree = small().with("agents/a/agent.yaml", with_image(lines));
    wrong(&files.iter().fold(tree, |tree, (path, text)| tree.with(path, text)))
}

fn overlaid(overlay: &str) -> String {
    wrong(&small().with("environments/prod/a.yaml", overlay))
}

/// A secret that is put together here, so that no scanner takes this file for a leak.
fn key() -> String {
    format!("sk-{}", "aB3d".repeat(8))
}

// === the agent's file ===

#[test]
fn what_is_not_known_or_not_right_all_at_once() {
    assert_snapshot!(spec("  replcas: 3\n  service_account: x\n  workload: {port: http, env: {PORT: 8000, A-B: x}}\n  history: 0\n  progressDeadline: soon\n  dependsOn: b\n"), @r#"
    agents/a/agent.yaml:6:3: error: unknown field `replcas` in `spec`
      |   replcas: 3
      |   ^^^^^^^
      hint: did you mean `replicas`?
    agents/a/agent.yaml:7:3: error: unknown field `service_account` in `spec`
      |   service_account: x
      |   ^^^^^^^^^^^^^^^
      hint: allowed here: `autoscaling`, `code`, `config`, `dependsOn`, `disruptionBudget`, `drain`, `history`, `memory`, `models`, `progressDeadline`, `prompts`, `replicas`, `rolling`, `rollout`, `route`, `tools`, `workers` and `workload`
    agents/a/agent.yaml:8:20: error: `port` is text, a whole number is expected
      |   workload: {port: http, env: {PORT: 8000, A-B: x}}
      |                    ^^^^
    agents/a/agent.yaml:8:38: error: `PORT` is a number, text, `{secret, key}` or `{field}` is expected
      |   workload: {port: http, env: {PORT: 8000, A-B: x}}
      |                                      ^^^^
      hint: write it in quotes: `"8000"`
    agents/a/agent.yaml:8:44: error: `A-B` cannot be the name of an environment variable
      |   workload: {port: http, env: {PORT: 8000, A-B: x}}
      |                                            ^^^
      hint: for example `LOG_LEVEL`
    agents/a/agent.yaml:9:12: error: `history` cannot be `0`: 1 is the least
      |   history: 0
      |            ^
    agents/a/agent.yaml:10:21: error: `soon` cannot be a duration: numbers with the units `d`, `h`, `m`, `s`, `ms` are expected, the largest first
      |   progressDeadline: soon
      |                     ^^^^
      hint: for example `1h30m`
    agents/a/agent.yaml:11:14: error: `dependsOn` is text, a list is expected
      |   dependsOn: b
      |              ^
    "#);
}

#[test]
fn what_is_missing() {
    assert_snapshot!(wrong(&small().with("agents/a/agent.yaml", "apiVersion: backstay.dev/v1\nkind: agent\n")), @"
    agents/a/agent.yaml:1:1: error: `metadata` is missing in the file
      | apiVersion: backstay.dev/v1
      | ^
    agents/a/agent.yaml:1:1: error: `spec` is missing in the file
      | apiVersion: backstay.dev/v1
      | ^
    agents/a/agent.yaml:1:13: error: `apiVersion` cannot be `backstay.dev/v1`: `backstay.dev/v1alpha1` is expected
      | apiVersion: backstay.dev/v1
      |             ^^^^^^^^^^^^^^^
    agents/a/agent.yaml:2:7: error: `kind` cannot be `agent`: `Agent` is expected
      | kind: agent
      |       ^^^^^
      hint: did you mean `Agent`?
    ");
    assert_snapshot!(wrong(&small().with("agents/a/agent.yaml", "")), @"
    agents/a/agent.yaml:1:1: error: `apiVersion` is missing in the file
    agents/a/agent.yaml:1:1: error: `kind` is missing in the file
    agents/a/agent.yaml:1:1: error: `metadata` is missing in the file
    agents/a/agent.yaml:1:1: error: `spec` is missing in the file
    ");
    assert_snapshot!(wrong(&small().with("agents/a/agent.yaml", "- a\n")), @"
    agents/a/agent.yaml:1:1: error: the file is a list, a map is expected
      | - a
      | ^
    ");
    assert_snapshot!(wrong(&small().with("agents/a/agent.yaml", agent("a", "  replicas: 1\n"))), @"
    agents/a/agent.yaml:5:3: error: `code.image` is missing: nothing says what runs
      |   replicas: 1
      |   ^
      hint: for example `image: registry.example.com/agent@sha256:…`
    ");
    assert_snapshot!(spec("  memory: {migrations: m}\n  replicas:\n"), @"
    agents/a/agent.yaml:6:11: error: `database` is missing in `memory`
      |   memory: {migrations: m}
      |           ^
    agents/a/agent.yaml:7:11: error: `replicas` is empty, a whole number is expected
      |   replicas:
      |           ^
      hint: write a value, or leave the key out
    ");
}

#[test]
fn a_folder_is_an_agent_of_its_name() {
    let tree = small().with("agents/b/notes.md", "x");
    let state = resolved(&tree, "prod");
    assert!(state.agents[&name("a")].is_ok());
    assert_snapshot!(told(state.agents[&name("b")].as_ref().expect_err("no agent.yaml")), @"
    agents/b: error: the folder has no `agent.yaml`
      hint: write one, or take the folder away: then the agent is removed
    ");
    assert_snapshot!(wrong(&small().with("agents/a/agent.yaml", agent("b", &format!("  code: {{image: \"a@{DIGEST}\"}}\n")))), @"
    agents/a/agent.yaml:3:18: error: the agent calls itself `b`, its folder `a`
      | metadata: {name: b}
      |                  ^
      hint: write `name: a`; `renamedFrom` names what it was called before
    ");
    let state = resolved(
        &small()
            .with("agents/My_Agent/agent.yaml", "x")
            .with("agents/models/agent.yaml", "x")
            .with("agents/x.yaml", "x"),
        "prod",
    );
    assert_eq!(state.agents.len(), 1);
    assert_snapshot!(told(&state.warnings), @"
    agents/My_Agent: error: `My_Agent` cannot be the name of an agent: only lower-case letters, digits and `-` are allowed
    agents/models: error: `models` cannot be the name of an agent: the name is reserved
    agents/x.yaml: error: a file stands where the folders of agents do
      hint: each agent is a folder with an `agent.yaml`
    ");
}

#[test]
fn yaml_that_readers_disagree_on() {
    assert_snapshot!(spec("  config: {a: yes, b: 1, b: 2}\n  <<: {}\n  replicas: 010\n"), @r#"
    agents/a/agent.yaml:6:15: error: some read `yes` as a boolean, others as text
      |   config: {a: yes, b: 1, b: 2}
      |               ^^^
      hint: write `true`, or `"yes"` for text
    agents/a/agent.yaml:6:26: error: the key `b` stands here twice
      |   config: {a: yes, b: 1, b: 2}
      |                          ^
      hint: keep one of them
    agents/a/agent.yaml:7:3: error: a merge key (`<<`) is not read
      |   <<: {}
      |   ^^
      hint: write the fields out, or use an overlay
    agents/a/agent.yaml:8:13: error: some read `010` as an octal number, others as a decimal one
      |   replicas: 010
      |             ^^^
      hint: write `0o10`, or `"010"` for text
    "#);
    assert_snapshot!(spec("  config:\n\ta: 1\n"), @"
    agents/a/agent.yaml:7:2: error: this is not YAML: tabs disallowed within this context (block indentation)
      |  a: 1
      |  ^
      hint: indent with spaces
    ");
}

#[test]
fn names_that_are_too_long_together() {
    assert_snapshot!(spec("  workers: {abcdefghijklmnopqrstuvwxyzabcdefghijklmnop: {}, main: {}, x--y: {}}\n"), @"
    agents/a/agent.yaml:6:61: error: `main` cannot be the name of a worker: the name is reserved
      |   workers: {abcdefghijklmnopqrstuvwxyzabcdefghijklmnop: {}, main: {}, x--y: {}}
      |                                                             ^^^^
      hint: for example `indexer`
    agents/a/agent.yaml:6:71: error: `x--y` cannot be the name of a worker: `--` separates the parts of object names and cannot be in one
      |   workers: {abcdefghijklmnopqrstuvwxyzabcdefghijklmnop: {}, main: {}, x--y: {}}
      |                                                                       ^^^^
      hint: for example `indexer`
    ");
    assert_snapshot!(spec("  workers: {abcdefghijklmnopqrstuvwxyzabcdefghijklmnop: {}}\n"), @"
    agents/a/agent.yaml:6:13: error: `a` and `abcdefghijklmnopqrstuvwxyzabcdefghijklmnop` have 43 characters together, 42 are allowed
      |   workers: {abcdefghijklmnopqrstuvwxyzabcdefghijklmnop: {}}
      |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    ");
}

// === overlays ===

#[test]
fn errors_point_into_the_overlay() {
    assert_snapshot!(overlaid("replicas: many\nrollingg: {}\ncode: {image: \"a:latest\"}\n"), @"
    environments/prod/a.yaml:1:11: error: `replicas` is text, a whole number is expected
      | replicas: many
      |           ^^^^
    environments/prod/a.yaml:2:1: error: unknown field `rollingg` in `spec`
      | rollingg: {}
      | ^^^^^^^^
      hint: did you mean `rolling`?
    ");
    assert_snapshot!(overlaid("spec:\n  replicas: 3\n"), @"
    environments/prod/a.yaml:1:1: error: unknown field `spec` in an overlay
      | spec:
      | ^^^^
      hint: an overlay holds the fields of the agent's `spec` directly: `replicas: 3`
    ");
    assert_snapshot!(overlaid("- a\n"), @"
    environments/prod/a.yaml:1:1: error: an overlay is a map, this is a list
      | - a
      | ^
    ");
    assert_snapshot!(overlaid("code: null\n"), @r#"
    agents/a/agent.yaml:5:3: error: `code.image` is missing: nothing says what runs
      |   code: {image: "a@sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"}
      |   ^
      hint: for example `image: registry.example.com/agent@sha256:…`
    "#);
    assert_snapshot!(overlaid("replicas: 1\nreplicas: 2\n"), @"
    environments/prod/a.yaml:2:1: error: the key `replicas` stands here twice
      | replicas: 2
      | ^^^^^^^^
      hint: keep one of them
    ");
}

#[test]
fn errors_point_into_the_defaults() {
    let tree = small().with(
        "backstay.yaml",
        "apiVersion: backstay.dev/v1alpha1\nkind: Repository\nspec:\n  defaults: {replicas: x, histry: 3}\n",
    );
    assert_snapshot!(wrong(&tree), @"
    backstay.yaml:4:24: error: `replicas` is text, a whole number is expected
      |   defaults: {replicas: x, histry: 3}
      |                        ^
    backstay.yaml:4:27: error: unknown field `histry` in `defaults`
      |   defaults: {replicas: x, histry: 3}
      |                           ^^^^^^
      hint: did you mean `history`?
    ");
    assert_snapshot!(wrong(&small().with("backstay.yaml", "apiVersion: v1\n")), @"
    backstay.yaml:1:1: error: `kind` is missing in the file
      | apiVersion: v1
      | ^
    backstay.yaml:1:13: error: `apiVersion` cannot be `v1`: `backstay.dev/v1alpha1` is expected
      | apiVersion: v1
      |             ^^
    ");
    let mut tree = small();
    tree.remove("backstay.yaml");
    assert_snapshot!(wrong(&tree), @"
    backstay.yaml: error: `backstay.yaml` is missing: this is no config repository
      hint: `backstay init` makes one
    ");
}

#[test]
fn an_overlay_for_nobody() {
    let tree = small()
        .with("environments/prod/suport.yaml", "{}")
        .with("environments/prod/x.yml", "{}")
        .with("agents/support/agent.yaml", agent("support", &format!("  code: {{image: \"a@{DIGEST}\"}}\n")));
    assert_snapshot!(told(&resolved(&tree, "prod").warnings), @"
    environments/prod/suport.yaml: error: the overlay is for an agent `suport` that does not exist
      hint: did you mean `support`?
    environments/prod/x.yml: error: this is no overlay
      hint: `<agent>.yaml`, `models.yaml` and `variables.yaml` are read here
    ");
}

// === code ===

#[test]
fn images_that_do_not_stay_what_they_are() {
    let image = |image: &str| {
        wrong(&small().with("agents/a/agent.yaml", agent("a", &format!("  code: {{image: \"{image}\"}}\n"))))
    };
    assert_snapshot!(image("registry.example.com:5000/a"), @r#"
    agents/a/agent.yaml:5:17: error: the image has no tag and no digest
      |   code: {image: "registry.example.com:5000/a"}
      |                 ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      hint: name it by digest: `<image>@sha256:<64 hex digits>`
    "#);
    assert_snapshot!(image("a:latest"), @r#"
    agents/a/agent.yaml:5:17: error: the image is tagged `latest`, which is another one tomorrow
      |   code: {image: "a:latest"}
      |                 ^^^^^^^^^^
      hint: name it by digest: `<image>@sha256:<64 hex digits>`
    "#);
    assert_snapshot!(image("a:1.0"), @r#"
    agents/a/agent.yaml:5:17: error: the image is named by a tag, and this environment asks for digests
      |   code: {image: "a:1.0"}
      |                 ^^^^^^^
      hint: name it by digest: `<image>@sha256:<64 hex digits>`, or write `images: tags` in the environment's file
    "#);
    assert_snapshot!(image("A b"), @r#"
    agents/a/agent.yaml:5:17: error: `A b` cannot be a container image
      |   code: {image: "A b"}
      |                 ^^^^^
      hint: for example `registry.example.com/agent@sha256:…`
    "#);
    let sidecar = "  workload: {podTemplate: {spec: {containers: [{name: x, image: \"x:latest\"}], initContainers: [{name: init, image: init}]}}}\n  workers: {w: {podTemplate: {spec: {containers: [{name: z, image: \"z:1\"}]}}}}\n";
    assert_snapshot!(spec(sidecar), @r#"
    agents/a/agent.yaml:6:65: error: the image is tagged `latest`, which is another one tomorrow
      |   workload: {podTemplate: {spec: {containers: [{name: x, image: "x:latest"}], initContainers: [{name: init, image: init}
      |                                                                 ^^^^^^^^^^
      hint: name it by digest: `<image>@sha256:<64 hex digits>`
    agents/a/agent.yaml:6:116: error: the image has no tag and no digest
      |   workload: {podTemplate: {spec: {containers: [{name: x, image: "x:latest"}], initContainers: [{name: init, image: init}
      |                                                                                                                    ^^^^
      hint: name it by digest: `<image>@sha256:<64 hex digits>`
    agents/a/agent.yaml:7:68: error: the image is named by a tag, and this environment asks for digests
      |   workers: {w: {podTemplate: {spec: {containers: [{name: z, image: "z:1"}]}}}}
      |                                                                    ^^^^^
      hint: name it by digest: `<image>@sha256:<64 hex digits>`, or write `images: tags` in the environment's file
    "#);
    let tags = small().with(
        "environments/prod.yaml",
        "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: prod}\nspec: {images: tags}\n",
    );
    assert!(
        resolved(&tags.clone().with("agents/a/agent.yaml", agent("a", "  code: {image: \"a:1.0\"}\n")), "prod").agents
            [&name("a")]
            .is_ok()
    );
    assert_snapshot!(wrong(&tags.with("agents/a/agent.yaml", agent("a", "  code: {image: \"a:latest\"}\n"))), @r#"
    agents/a/agent.yaml:5:17: error: the image is tagged `latest`, which is another one tomorrow
      |   code: {image: "a:latest"}
      |                 ^^^^^^^^^^
      hint: name it by digest: `<image>@sha256:<64 hex digits>`
    "#);
}

// === prompts ===

#[test]
fn prompts_that_are_not_there() {
    let files =
        [("agents/a/prompts/system.md", "x"), ("agents/a/prompts/empty.md", ""), ("shared/prompts/safety.md", "x")];
    let prompts = "  prompts:\n    one: prompts/systm.md\n    two: [/shared/prompts/safty.md, prompts/system.md]\n    three: {file: nowhere/x.md}\n    four: prompts/empty.md\n    five: prompts\n";
    assert_snapshot!(with(prompts, &files), @"
    agents/a/agent.yaml:7:10: error: `agents/a/prompts/systm.md` does not exist
      |     one: prompts/systm.md
      |          ^^^^^^^^^^^^^^^^
      hint: did you mean `prompts/system.md`?
    agents/a/agent.yaml:8:11: error: `shared/prompts/safty.md` does not exist
      |     two: [/shared/prompts/safty.md, prompts/system.md]
      |           ^^^^^^^^^^^^^^^^^^^^^^^^
      hint: did you mean `/shared/prompts/safety.md`?
    agents/a/agent.yaml:9:19: error: `agents/a/nowhere/x.md` does not exist
      |     three: {file: nowhere/x.md}
      |                   ^^^^^^^^^^^^
      hint: paths are from `agents/a`; a leading `/` is the root of the repository
    agents/a/agent.yaml:10:11: error: `prompts/empty.md` is empty
      |     four: prompts/empty.md
      |           ^^^^^^^^^^^^^^^^
    agents/a/agent.yaml:11:11: error: `agents/a/prompts` is a folder, a file is expected
      |     five: prompts
      |           ^^^^^^^
    ");
    assert_snapshot!(spec("  prompts: {one: ../x.md, two: [], three: {files: x}, a.b: x.md, four: 7}\n"), @r#"
    agents/a/agent.yaml:6:18: error: `../x.md` cannot be a path in the repository: `.` and `..` are refused: write it from the agent's folder, or from the root with a leading `/`
      |   prompts: {one: ../x.md, two: [], three: {files: x}, a.b: x.md, four: 7}
      |                  ^^^^^^^
      hint: for example `prompts/system.md`
    agents/a/agent.yaml:6:32: error: `two` is empty
      |   prompts: {one: ../x.md, two: [], three: {files: x}, a.b: x.md, four: 7}
      |                                ^
    agents/a/agent.yaml:6:43: error: `three` needs `file`
      |   prompts: {one: ../x.md, two: [], three: {files: x}, a.b: x.md, four: 7}
      |                                           ^
      hint: did you mean `file`?
    agents/a/agent.yaml:6:55: error: `a.b` cannot be a name here: letters, digits, `_` and `-` are allowed, 63 at most
      |   prompts: {one: ../x.md, two: [], three: {files: x}, a.b: x.md, four: 7}
      |                                                       ^^^
      hint: for example `search_orders`
    agents/a/agent.yaml:6:72: error: `four` is a number, text or a list is expected
      |   prompts: {one: ../x.md, two: [], three: {files: x}, a.b: x.md, four: 7}
      |                                                                        ^
      hint: write it in quotes: `"7"`
    "#);
    let tree = small().with("agents/a/agent.yaml", with_image("  prompts: {one: x.md, two: y.md}\n"));
    assert_snapshot!(wrong(&tree.with("agents/a/x.md", b"a\nb\xff").with("agents/a/y.md", b"a\0b")), @"
    agents/a/agent.yaml:6:29: error: `y.md` holds the character U+0000: it is no text
    agents/a/x.md:2: error: the file is not UTF-8 text
      hint: save it as UTF-8
    ");
}

#[test]
fn variables_of_prompts() {
    let prompt = |entry: &str, text: &str| with(&format!("  prompts:\n    p: {entry}\n"), &[("agents/a/p.md", text)]);
    assert_snapshot!(prompt("{file: p.md, syntax: mustache, variables: [customer, order]}", "Hello {{custmer}}.\n{{#order}}{{number}}{{/order}}\n"), @"
    agents/a/agent.yaml:7:51: error: the prompt has no variable `customer`
      |     p: {file: p.md, syntax: mustache, variables: [customer, order]}
      |                                                   ^^^^^^^^
    agents/a/p.md:1:7: error: the variable `custmer` is not declared
      | Hello {{custmer}}.
      |       ^^^^^^^^^^^
      hint: did you mean `customer`?
    ");
    assert_snapshot!(prompt("{file: p.md, syntax: format, variables: [a, b]}", "{a} {c} {c}\n"), @"
    agents/a/agent.yaml:7:52: error: the prompt has no variable `b`
      |     p: {file: p.md, syntax: format, variables: [a, b]}
      |                                                    ^
    agents/a/p.md:1:5: error: the variable `c` is not declared
      | {a} {c} {c}
      |     ^^^
      hint: did you mean `a`?
    ");
    assert_snapshot!(prompt("{file: p.md, syntax: dollar}", "costs $5, for $name\n"), @"
    agents/a/p.md:1:15: error: the variable `name` is not declared
      | costs $5, for $name
      |               ^^^^^
      hint: declare it in `variables`
    ");
    assert_snapshot!(prompt("{file: p.md, syntax: jinja, variables: [a]}", "{% if a %}{{ a }}{% endif %}\n"), @"
    agents/a/p.md:1:1: error: statements (`{% … %}`) cannot be checked
      | {% if a %}{{ a }}{% endif %}
      | ^^
      hint: leave `syntax` out: the prompt is opaque then
    ");
    assert_snapshot!(prompt("{file: p.md, variables: [a]}", "{{a}}\n"), @"
    agents/a/agent.yaml:7:21: error: the variables cannot be checked: the prompt has no `syntax`
      |     p: {file: p.md, variables: [a]}
      |                     ^^^^^^^^^
      hint: `mustache`, `jinja`, `format` or `dollar`
    ");
    assert_snapshot!(prompt("{file: p.md, syntax: moustache}", "{{a}}\n"), @"
    agents/a/agent.yaml:7:29: error: `syntax` cannot be `moustache`: `mustache`, `jinja`, `format` or `dollar` is expected
      |     p: {file: p.md, syntax: moustache}
      |                             ^^^^^^^^^
      hint: did you mean `mustache`?
    ");
    assert_snapshot!(prompt("{file: p.md, syntax: mustache, variables: [a]}", "x {{a\n"), @"
    agents/a/p.md:1:3: error: `{{` is not closed by `}}`
      | x {{a
      |   ^^
    ");
}

// === models ===

#[test]
fn models_that_are_not_in_the_catalogue() {
    let catalogue = (
        "shared/models.yaml",
        "fast: {provider: openai, model: gpt-4o-mini}\nsteady: {provider: openai, model: gpt-4o}\n",
    );
    let models = "  models:\n    one: {use: fsat}\n    two: {use: fast, fallbacks: [steady, stedy]}\n    three: {model: x}\n    four: {use: fast, temperature: 0.3}\n    five: {}\n";
    assert_snapshot!(with(models, &[catalogue]), @"
    agents/a/agent.yaml:10:23: error: unknown field `temperature` in `four`
      |     four: {use: fast, temperature: 0.3}
      |                       ^^^^^^^^^^^
      hint: allowed here: `credentials`, `endpoint`, `fallbacks`, `model`, `parameters`, `provider`, `retires` and `use`
    ");
    let models =
        "  models:\n    one: {use: fsat}\n    two: {use: fast, fallbacks: [steady, stedy]}\n    three: {model: x}\n";
    assert_snapshot!(with(models, &[catalogue]), @"
    agents/a/agent.yaml:7:16: error: the catalogue `shared/models.yaml` has no model `fsat`
      |     one: {use: fsat}
      |                ^^^^
      hint: did you mean `fast`?
    agents/a/agent.yaml:8:42: error: the catalogue `shared/models.yaml` has no model `stedy`
      |     two: {use: fast, fallbacks: [steady, stedy]}
      |                                          ^^^^^
      hint: did you mean `steady`?
    agents/a/agent.yaml:9:12: error: `provider` is missing in the model `three`
      |     three: {model: x}
      |            ^
      hint: or take it from the catalogue: `use: <name>`
    ");
    assert_snapshot!(with("  models: {one: {use: fast}}\n", &[]), @"
    agents/a/agent.yaml:6:23: error: the catalogue `shared/models.yaml` has no model `fast`
      |   models: {one: {use: fast}}
      |                       ^^^^
      hint: it is empty or missing
    ");
    assert_snapshot!(with("  models: {one: {use: fast}}\n", &[("shared/models.yaml", "fast: {provider: openai, modle: x}\n")]), @"
    shared/models.yaml:1:7: error: `model` is missing in `fast`
      | fast: {provider: openai, modle: x}
      |       ^
    shared/models.yaml:1:26: error: unknown field `modle` in `fast`
      | fast: {provider: openai, modle: x}
      |                          ^^^^^
      hint: did you mean `model`?
    ");
    assert_snapshot!(with("  models: {one: {use: fast}}\n", &[catalogue, ("environments/prod/models.yaml", "fast: {retires: soon, endpoint: api.example.com}\n")]), @"
    environments/prod/models.yaml:1:17: error: `soon` cannot be a date: a year, a month and a day are expected
      | fast: {retires: soon, endpoint: api.example.com}
      |                 ^^^^
      hint: for example `2027-01-14`
    environments/prod/models.yaml:1:33: error: `api.example.com` cannot be an address
      | fast: {retires: soon, endpoint: api.example.com}
      |                                 ^^^^^^^^^^^^^^^
      hint: for example `https://api.example.com/v1`
    ");
    assert_snapshot!(with("  models: {one: {use: fast}}\n", &[catalogue, ("environments/prod/models.yaml", "fast: null\n")]), @"
    agents/a/agent.yaml:6:23: error: the catalogue `shared/models.yaml` has no model `fast`
      |   models: {one: {use: fast}}
      |                       ^^^^
      hint: it has `steady`
    ");
}

#[test]
fn models_that_retire() {
    let catalogue = "fast: {provider: p, model: fast-1, retires: 2026-11-24}\nsteady: {provider: p, model: steady-1, retires: 2026-12-20}\n";
    assert_snapshot!(with("  models: {one: {use: fast}, two: {use: steady}}\n", &[("shared/models.yaml", catalogue)]), @"
    shared/models.yaml:1:45: error: the model `fast-1` has retired on 2026-11-24
      | fast: {provider: p, model: fast-1, retires: 2026-11-24}
      |                                             ^^^^^^^^^^
      hint: use another model: a release with this one would not answer
    ");
    let tree = small()
        .with("shared/models.yaml", catalogue)
        .with("agents/a/agent.yaml", with_image("  models: {one: {provider: p, model: m, fallbacks: [steady]}}\n"));
    assert_snapshot!(told(&crate::repository::good(&tree, "prod", "a").warnings), @"
    shared/models.yaml:2:49: warning: the model `steady-1` retires on 2026-12-20
      | steady: {provider: p, model: steady-1, retires: 2026-12-20}
      |                                                 ^^^^^^^^^^
      hint: move to another one before: after that day no release with it can be the way back
    ");
}

// === tools ===

#[test]
fn tools_that_are_none() {
    let tools = "  tools: {search: tools/search.json, find: tools/fnd.json}\n";
    let search = "{\n  \"name\": \"serch\",\n  \"inputSchema\": {\n    \"type\": \"object\",\n    \"properties\": {\"a\": {\"type\": \"text\"}},\n    \"required\": \"a\"\n  }\n}\n";
    assert_snapshot!(with(tools, &[("agents/a/tools/search.json", search), ("agents/a/tools/find.json", "{}")]), @r#"
    agents/a/agent.yaml:6:44: error: `agents/a/tools/fnd.json` does not exist
      |   tools: {search: tools/search.json, find: tools/fnd.json}
      |                                            ^^^^^^^^^^^^^^
      hint: did you mean `tools/find.json`?
    agents/a/tools/search.json:1:1: error: `description` is missing in the tool
      | {
      | ^
    agents/a/tools/search.json:2:11: error: the tool calls itself `serch`, the agent knows it as `search`
      |   "name": "serch",
      |           ^^^^^^^
      hint: use one name in both places
    agents/a/tools/search.json:5:34: error: `inputSchema` is no valid JSON Schema: `properties/a/type` breaks `anyOf` of the meta-schema
      |     "properties": {"a": {"type": "text"}},
      |                                  ^^^^^^
    agents/a/tools/search.json:6:17: error: `inputSchema` is no valid JSON Schema: `required` breaks `type` of the meta-schema
      |     "required": "a"
      |                 ^^^
    "#);
    assert_snapshot!(with("  tools: {t: t.json}\n", &[("agents/a/t.json", "{\"name\": \"t\",\n \"name\": \"t\",}")]), @r#"
    agents/a/t.json:2:14: error: a comma stands before the end
      |  "name": "t",}
      |              ^
      hint: JSON has none after the last item
    "#);
    let remote = "{\"name\": \"t\", \"description\": \"d\", \"inputSchema\": {\"type\": \"object\",\n \"properties\": {\"a\": {\"$ref\": \"https://example.com/a.json\"}, \"b\": {\"$ref\": \"#/$defs/b\"}}}}";
    assert_snapshot!(with("  tools: {t: t.json}\n", &[("agents/a/t.json", remote)]), @r##"
    agents/a/t.json:2:31: error: a reference leads out of the file
      |  "properties": {"a": {"$ref": "https://example.com/a.json"}, "b": {"$ref": "#/$defs/b"}}}}
      |                               ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      hint: put what it names into `$defs`, and refer to it as `#/$defs/<name>`
    "##);
    let pattern = "{\"name\": \"t\", \"description\": \"d\", \"inputSchema\": {\"type\": \"object\", \"properties\": {\"a\": {\"pattern\": \"(a+)+\\\\1\"}}}}";
    assert_snapshot!(with("  tools: {t: t.json}\n", &[("agents/a/t.json", pattern)]), @r#"
    agents/a/t.json:1:101: error: `inputSchema` is no usable JSON Schema: a pattern cannot be run in linear time, or is too large
      | {"name": "t", "description": "d", "inputSchema": {"type": "object", "properties": {"a": {"pattern": "(a+)+\\1"}}}}
      |                                                                                                     ^^^^^^^^^^
    "#);
}

// === memory ===

#[test]
fn migrations_that_make_no_chain() {
    let memory = "  memory: {database: {secret: s, key: k}, migrations: m}\n";
    assert_snapshot!(spec(memory), @"
    agents/a/agent.yaml:6:55: error: the folder `agents/a/m` does not exist or is empty
      |   memory: {database: {secret: s, key: k}, migrations: m}
      |                                                       ^
      hint: take `migrations` away while there are none
    ");
    let files = [
        ("agents/a/m/0001_a.up.sql", "CREATE TABLE a ();"),
        ("agents/a/m/0003_b.up.sql", "DROP TABLE a;"),
        ("agents/a/m/0003_b.down.sql", "CREATE TABLE a ();"),
        ("agents/a/m/README.md", "x"),
    ];
    assert_snapshot!(with(memory, &files), @"
    agents/a/m/0001_a.up.sql: error: `0001_a.down.sql` is missing: there is no way back
      hint: write it, or begin the up script with `-- backstay: irreversible`
    agents/a/m/0003_b.up.sql: error: the number 2 is left out before this one
      hint: numbers follow one another, or are times of at least 10 digits
    agents/a/m/README.md: error: the name is not that of a migration
      hint: call it `<number>_<name>.up.sql`, `.down.sql` or `.verify.sql`: `0001_episodes.up.sql`
    ");
    assert_snapshot!(spec("  memory: {database: \"postgres://db/app\"}\n"), @"
    agents/a/agent.yaml:6:22: error: `database` holds a value where a reference belongs
      hint: write `{secret: <name>, key: <key>}`, and keep the value in that Secret
    ");
}

// === flags ===

#[test]
fn flags_that_flagd_would_not_read() {
    let flags = "{\"flags\": {\"a\": {\n  \"state\": \"ON\",\n  \"variants\": {\"on\": true, \"off\": 0},\n  \"defaultVariant\": \"of\",\n  \"targetting\": {}\n}}}";
    assert_snapshot!(with("", &[("agents/a/flags.json", flags)]), @r#"
    agents/a/flags.json:2:12: error: `state` is `ENABLED` or `DISABLED`
      |   "state": "ON",
      |            ^^^^
    agents/a/flags.json:3:22: error: the values of a flag are of one kind: a number is expected
      |   "variants": {"on": true, "off": 0},
      |                      ^^^^
    agents/a/flags.json:4:21: error: `defaultVariant` names no variant
      |   "defaultVariant": "of",
      |                     ^^^^
      hint: there are `off`, `on`
    agents/a/flags.json:5:3: error: unknown field `targetting`
      |   "targetting": {}
      |   ^^^^^^^^^^^^
      hint: allowed here: `state`, `variants`, `defaultVariant`, `targeting`, `metadata`
    "#);
    assert_snapshot!(with("", &[("agents/a/flags.json", "{\"flags\": {}")]), @r#"
    agents/a/flags.json:1:13: error: the JSON ends where `,` or `}` is expected
      | {"flags": {}
      |             ^
    "#);
}

// === secrets ===

#[test]
fn secrets_in_plain_text() {
    let key = key();
    let lines = format!(
        "  models: {{m: {{provider: p, model: m, credentials: {key}, parameters: {{api_key: hunter2, x: {key}}}}}}}\n  \
         memory: {{database: hunter2}}\n  config: {{a: [\"Bearer {key}\"], clientSecret: hunter2, b: \"postgres://u:hunter2@db/x\"}}\n  \
         workload:\n    env:\n      OPENAI_API_KEY: hunter2\n      DB_PASSWORD: {{secret: s, key: k}}\n      GITHUB_TOKEN: hunter2\n      USE_TOKEN: \"true\"\n      FINE: {key}\n    \
         podTemplate: {{spec: {{containers: [{{name: x, env: [{{name: X_SECRET, value: hunter2}}]}}]}}}}\n"
    );
    let told = spec(&lines);
    assert!(!told.contains("hunter2") && !told.contains(&key), "{told}");
    assert_snapshot!(told, @"
    agents/a/agent.yaml:6:52: error: `credentials` holds a value where a reference belongs
      hint: write `{secret: <name>, key: <key>}`, and keep the value in that Secret
    agents/a/agent.yaml:6:111: error: the value of `api_key` is a secret in plain text
      hint: put it into a Secret, refer to it as `{secret: <name>, key: <key>}`, and change it: it is in the history
    agents/a/agent.yaml:6:123: error: an API key is written in plain text
      hint: put it into a Secret, refer to it as `{secret: <name>, key: <key>}`, and change it: it is in the history
    agents/a/agent.yaml:7:22: error: `database` holds a value where a reference belongs
      hint: write `{secret: <name>, key: <key>}`, and keep the value in that Secret
    agents/a/agent.yaml:8:16: error: an API key is written in plain text
      hint: put it into a Secret, refer to it as `{secret: <name>, key: <key>}`, and change it: it is in the history
    agents/a/agent.yaml:8:77: error: the value of `clientSecret` is a secret in plain text
      hint: put it into a Secret, refer to it as `{secret: <name>, key: <key>}`, and change it: it is in the history
    agents/a/agent.yaml:8:89: error: an address with a password is written in plain text
      hint: put it into a Secret, refer to it as `{secret: <name>, key: <key>}`, and change it: it is in the history
    agents/a/agent.yaml:11:23: error: the value of `OPENAI_API_KEY` is a secret in plain text
      hint: put it into a Secret, refer to it as `{secret: <name>, key: <key>}`, and change it: it is in the history
    agents/a/agent.yaml:13:21: error: the value of `GITHUB_TOKEN` is a secret in plain text
      hint: put it into a Secret, refer to it as `{secret: <name>, key: <key>}`, and change it: it is in the history
    agents/a/agent.yaml:15:13: error: an API key is written in plain text
      hint: put it into a Secret, refer to it as `{secret: <name>, key: <key>}`, and change it: it is in the history
    agents/a/agent.yaml:16:79: error: the value of `X_SECRET` is a secret in plain text
      hint: put it into a Secret, refer to it as `{secret: <name>, key: <key>}`, and change it: it is in the history
    ");
}

#[test]
fn a_secret_is_not_shown_by_other_errors_of_its_line() {
    let key = key();
    let told = spec(&format!("  workload: {{port: {key}, env: {{A_TOKEN: hunter2}}, {key}: 1}}\n  replicas: {key}\n"));
    assert!(!told.contains("hunter2") && !told.contains(&key), "{told}");
    let told = spec(&format!("  workload: {{env: {{A_TOKEN: hunter2: {key}}}}}\n"));
    assert!(!told.contains("hunter2") && !told.contains(&key), "{told}");
    assert_snapshot!(told, @"agents/a/agent.yaml:6:36: error: this is not YAML: while parsing a flow mapping, did not find expected ',' or '}'");
}

#[test]
fn secrets_in_other_files() {
    let key = key();
    let variables = with("", &[("environments/prod/variables.yaml", &format!("API_KEY: {key}\n"))]);
    assert!(!variables.contains(&key));
    assert_snapshot!(variables, @"
    environments/prod/variables.yaml:1:10: error: the value of `API_KEY` is a secret in plain text
      hint: put it into a Secret, refer to it as `{secret: <name>, key: <key>}`, and change it: it is in the history
    ");
    let catalogue = with(
        "  models: {m: {use: fast}}\n",
        &[("shared/models.yaml", &format!("fast: {{provider: p, model: m, credentials: {key}}}\n"))],
    );
    assert!(!catalogue.contains(&key));
    assert_snapshot!(catalogue, @"
    shared/models.yaml:1:44: error: `credentials` holds a value where a reference belongs
      hint: write `{secret: <name>, key: <key>}`, and keep the value in that Secret
    ");
    let manifests = with(
        "",
        &[(
            "agents/a/manifests/x.yaml",
            &format!(
                "apiVersion: v1\nkind: Secret\nmetadata: {{name: x}}\nstringData: {{a: {key}}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: z}}\ndata: {{password: hunter2}}\n"
            ),
        )],
    );
    assert!(!manifests.contains(&key) && !manifests.contains("hunter2"));
    assert_snapshot!(manifests, @"
    agents/a/manifests/x.yaml:2:7: error: a Secret with its values stands in plain text
      hint: make the Secret in the cluster, or by an operator that fetches it
    agents/a/manifests/x.yaml:9:18: error: the value of `password` is a secret in plain text
      hint: put it into a Secret, refer to it as `{secret: <name>, key: <key>}`, and change it: it is in the history
    ");
    let flags = with(
        "",
        &[(
            "agents/a/flags.json",
            &format!("{{\"flags\": {{\"a\": {{\"state\": \"ENABLED\", \"variants\": {{\"on\": \"{key}\"}}}}}}}}"),
        )],
    );
    assert!(!flags.contains(&key));
    assert_snapshot!(flags, @"
    agents/a/flags.json:1:57: error: an API key is written in plain text
      hint: put it into a Secret, refer to it as `{secret: <name>, key: <key>}`, and change it: it is in the history
    ");
}
