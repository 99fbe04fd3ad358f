//! Every refusal, as a person reads it.

use backstay::desired::{consents, environment, environments};
use backstay::source::{MemoryTree, Tree, TreeError};
use insta::assert_snapshot;

use crate::repository::{DIGEST, agent, at, name, resolved, small, told, with_image, wrong};

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
    agents/a/t.json:1:101: error: `inputSchema` is no usable JSON Schema: a pattern cannot be run in linear time
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

// === workload ===

#[test]
fn workloads_that_cannot_run() {
    assert_snapshot!(spec("  workload:\n    health: {live: health, ready: /ready, startup: {httpGet: {path: /x}, periodSeconds: 0}}\n    resources: {requests: {cpu: 1 core, memory: true}, limit: {}}\n    env: {A: {secret: x}, B: {feild: metadata.name}, C: [1]}\n"), @r#"
    agents/a/agent.yaml:7:62: error: `port` is missing in `httpGet`
      |     health: {live: health, ready: /ready, startup: {httpGet: {path: /x}, periodSeconds: 0}}
      |                                                              ^
    agents/a/agent.yaml:7:89: error: `periodSeconds` cannot be `0`: 1 is the least
      |     health: {live: health, ready: /ready, startup: {httpGet: {path: /x}, periodSeconds: 0}}
      |                                                                                         ^
    agents/a/agent.yaml:8:33: error: `1 core` cannot be a quantity
      |     resources: {requests: {cpu: 1 core, memory: true}, limit: {}}
      |                                 ^^^^^^
      hint: for example `500m, 1Gi`
    agents/a/agent.yaml:8:49: error: `memory` is a boolean, text or a number is expected
      |     resources: {requests: {cpu: 1 core, memory: true}, limit: {}}
      |                                                 ^^^^
      hint: write it in quotes: `"true"`
    agents/a/agent.yaml:8:56: error: unknown field `limit` in `resources`
      |     resources: {requests: {cpu: 1 core, memory: true}, limit: {}}
      |                                                        ^^^^^
      hint: did you mean `limits`?
    agents/a/agent.yaml:9:14: error: `key` is missing in `A`
    agents/a/agent.yaml:9:30: error: `B` needs `secret` or `field`
      hint: did you mean `field`?
    agents/a/agent.yaml:9:57: error: `C` is a list, text, `{secret, key}` or `{field}` is expected
    "#);
    assert_snapshot!(spec("  workload: {port: 8000, health: {live: health, ready: {periodSeconds: 1}}}\n  workers: {w: {health: {live: /x}}}\n"), @"
    agents/a/agent.yaml:6:41: error: `live` is no path: it begins with `/`
      |   workload: {port: 8000, health: {live: health, ready: {periodSeconds: 1}}}
      |                                         ^^^^^^
    agents/a/agent.yaml:6:49: error: the probe `ready` needs exactly one of `exec`, `httpGet`, `tcpSocket` and `grpc`
      |   workload: {port: 8000, health: {live: health, ready: {periodSeconds: 1}}}
      |                                                 ^^^^^
    agents/a/agent.yaml:7:32: error: `live` is a path, and the process has no `port`
      |   workers: {w: {health: {live: /x}}}
      |                                ^^
      hint: write a whole probe: `httpGet: {path: …, port: …}`
    ");
    assert_snapshot!(spec("  rolling: {maxSurge: 0, maxUnavailable: 0%}\n  autoscaling: {minReplicas: 5, maxReplicas: 3}\n  dependsOn: [a]\n  progressDeadline: 0s\n"), @"
    agents/a/agent.yaml:6:3: error: with `maxSurge` and `maxUnavailable` both 0 no pod could be replaced
      |   rolling: {maxSurge: 0, maxUnavailable: 0%}
      |   ^^^^^^^
      hint: `{maxSurge: 1, maxUnavailable: 0}` keeps all pods serving
    agents/a/agent.yaml:7:30: error: `minReplicas` is more than `maxReplicas`
      |   autoscaling: {minReplicas: 5, maxReplicas: 3}
      |                              ^
    agents/a/agent.yaml:8:15: error: `a` cannot wait for itself
      |   dependsOn: [a]
      |               ^
    agents/a/agent.yaml:9:21: error: the deadline is less than a second
      |   progressDeadline: 0s
      |                     ^^
    ");
    assert_snapshot!(spec("  rolling: {maxSurge: 120%}\n  autoscaling: {}\n  disruptionBudget: {minAvailable: 1, maxUnavailable: 1}\n  dependsOn: [b, b, A]\n"), @"
    agents/a/agent.yaml:6:23: error: `120%` cannot be a percentage
      |   rolling: {maxSurge: 120%}
      |                       ^^^^
      hint: for example `25%`
    agents/a/agent.yaml:7:16: error: `maxReplicas` is missing in `autoscaling`
      |   autoscaling: {}
      |                ^
    agents/a/agent.yaml:8:39: error: `disruptionBudget` takes only one of `maxUnavailable` or `minAvailable`
      |   disruptionBudget: {minAvailable: 1, maxUnavailable: 1}
      |                                       ^^^^^^^^^^^^^^
    agents/a/agent.yaml:9:18: error: `b` stands in `dependsOn` twice
      |   dependsOn: [b, b, A]
      |                  ^
    agents/a/agent.yaml:9:21: error: `A` cannot be the name of an agent: only lower-case letters, digits and `-` are allowed
      |   dependsOn: [b, b, A]
      |                     ^
      hint: for example `support`
    ");
}

#[test]
fn deployments_of_your_own_that_do_not_fit() {
    let manifest =
        |workload: &str, text: &str| with(&format!("  workload: {workload}\n"), &[("agents/a/deployment.yaml", text)]);
    let deployment = format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: x}}\nspec:\n  replicas: two\n  template:\n    spec:\n      containers: [{{name: web, image: \"a@{DIGEST}\"}}, {{name: side, image: side}}]\n"
    );
    assert_snapshot!(manifest("{manifest: deployment.yaml, container: agent, serviceAccount: x}", &deployment), @r#"
    agents/a/agent.yaml:6:52: error: the Deployment has no container `agent`
      |   workload: {manifest: deployment.yaml, container: agent, serviceAccount: x}
      |                                                    ^^^^^
      hint: it has `web` and `side`
    agents/a/agent.yaml:6:59: error: `serviceAccount` belongs into the manifest
      |   workload: {manifest: deployment.yaml, container: agent, serviceAccount: x}
      |                                                           ^^^^^^^^^^^^^^
      hint: write `serviceAccountName` there, and the ServiceAccount in `manifests/`
    agents/a/deployment.yaml:5:13: error: `replicas` is no number of pods
      |   replicas: two
      |             ^^^
    agents/a/deployment.yaml:8:137: error: the image has no tag and no digest
      | 413413422d706483bfa0f98a5e886266e7ae"}, {name: side, image: side}]
      |                                                             ^^^^
      hint: name it by digest: `<image>@sha256:<64 hex digits>`
    "#);
    assert_snapshot!(manifest("{manifest: deployment.yaml}", &deployment), @"
    agents/a/agent.yaml:6:24: error: `container` is missing beside `manifest`
      |   workload: {manifest: deployment.yaml}
      |                        ^^^^^^^^^^^^^^^
      hint: name the container of the Deployment that is the agent
    ");
    assert_snapshot!(manifest("{container: agent}", &deployment), @"
    agents/a/agent.yaml:6:25: error: `container` names a container of `manifest`, which is missing
      |   workload: {container: agent}
      |                         ^^^^^
    ");
    assert_snapshot!(manifest("{manifest: deploy.yaml, container: web}", &deployment), @"
    agents/a/agent.yaml:6:24: error: `agents/a/deploy.yaml` does not exist
      |   workload: {manifest: deploy.yaml, container: web}
      |                        ^^^^^^^^^^^
      hint: paths are from `agents/a`; a leading `/` is the root of the repository
    ");
    assert_snapshot!(manifest("{manifest: deployment.yaml, container: web}", "apiVersion: apps/v1\nkind: StatefulSet\n---\nkind: Service\n"), @"
    agents/a/deployment.yaml:2:7: error: a Deployment of `apps/v1` is expected
      | kind: StatefulSet
      |       ^^^^^^^^^^^
    agents/a/deployment.yaml:4:1: error: a further document stands in the agent's Deployment
      | kind: Service
      | ^
      hint: further objects belong into `manifests/`
    ");
    assert_snapshot!(manifest("{manifest: deployment.yaml, container: web}", "---\n"), @"
    agents/a/agent.yaml:6:24: error: `deployment.yaml` holds no Deployment
      |   workload: {manifest: deployment.yaml, container: web}
      |                        ^^^^^^^^^^^^^^^
    ");
    assert_snapshot!(manifest("{manifest: deployment.yaml, container: web}", "apiVersion: apps/v1\nkind: Deployment\nspec: {}\n"), @"
    agents/a/deployment.yaml:3:1: error: the Deployment has no `spec.template`
      | spec: {}
      | ^^^^
    ");
    let bare = small().with("agents/a/agent.yaml", agent("a", "  workload: {manifest: d.yaml, container: web}\n"));
    assert_snapshot!(wrong(&bare.with("agents/a/d.yaml", "apiVersion: apps/v1\nkind: Deployment\nspec: {template: {spec: {containers: [{name: web}]}}}\n")), @"
    agents/a/d.yaml:3:39: error: the agent's container has no image, and `code.image` is missing
      | spec: {template: {spec: {containers: [{name: web}]}}}
      |                                       ^
    ");
}

#[test]
fn manifests_that_no_agent_may_ask_for() {
    let text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: x}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: w, namespace: other}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: w--z}\n---\napiVersion: backstay.dev/v1alpha1\nkind: AgentRelease\nmetadata: {name: x}\n---\nkind: ConfigMap\nmetadata: {generateName: x}\n---\n- a\n---\napiVersion: v1\nkind: List\nmetadata: {name: x}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: q, uid: x, ownerReferences: []}\n";
    assert_snapshot!(with("", &[("agents/a/manifests/x.yaml", text), ("agents/a/manifests/y.yml", "a: 1"), ("agents/a/manifests/sub/z.yaml", "a: 1")]), @"
    agents/a/manifests/sub: error: this is no file of manifests
      hint: `manifests/` holds `.yaml` files and nothing else
    agents/a/manifests/x.yaml:2:7: error: `Namespace` is an object of the whole cluster, not of an agent
      | kind: Namespace
      |       ^^^^^^^^^
      hint: who runs the cluster makes it
    agents/a/manifests/x.yaml:7:32: error: the namespace is not for the repository to choose
      | metadata: {name: w, namespace: other}
      |                                ^^^^^
      hint: take the line away: the daemon's configuration says where an environment lives
    agents/a/manifests/x.yaml:11:18: error: `w--z` has `--` in its name
      | metadata: {name: w--z}
      |                  ^^^^
      hint: `--` separates the parts of the names that Backstay makes
    agents/a/manifests/x.yaml:14:7: error: `AgentRelease` is Backstay's own
      | kind: AgentRelease
      |       ^^^^^^^^^^^^
    agents/a/manifests/x.yaml:17:1: error: `apiVersion` is missing in the object
      | kind: ConfigMap
      | ^
    agents/a/manifests/x.yaml:18:1: error: `metadata.name` is missing in the object
      | metadata: {generateName: x}
      | ^^^^^^^^
    agents/a/manifests/x.yaml:20:1: error: an object is a map, this is a list
      | - a
      | ^
    agents/a/manifests/x.yaml:23:7: error: a `List` is not read
      | kind: List
      |       ^^^^
      hint: write its items as documents, with `---` between them
    agents/a/manifests/x.yaml:28:21: error: `metadata.uid` is for the cluster to write
      | metadata: {name: q, uid: x, ownerReferences: []}
      |                     ^^^
    agents/a/manifests/x.yaml:28:29: error: `metadata.ownerReferences` is for the cluster to write
      | metadata: {name: q, uid: x, ownerReferences: []}
      |                             ^^^^^^^^^^^^^^^
    agents/a/manifests/y.yml: error: this is no file of manifests
      hint: `manifests/` holds `.yaml` files and nothing else
    ");
    let twice = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: w}\n";
    assert_snapshot!(with("", &[("agents/a/manifests/x.yaml", twice), ("agents/a/manifests/z.yaml", twice)]), @"
    agents/a/manifests/z.yaml:3:18: error: `ConfigMap/w` is declared twice
      | metadata: {name: w}
      |                  ^
      hint: it stands in agents/a/manifests/x.yaml:1:1 too
    ");
    let own = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\n";
    assert_snapshot!(with("", &[("agents/a/manifests/x.yaml", own)]), @"
    agents/a/manifests/x.yaml:1:1: error: Backstay itself makes `Deployment/a`
      hint: give the object another name
    ");
    let many: String =
        (0..64).map(|n| format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: c{n}}}\n")).collect();
    assert_snapshot!(with("", &[("agents/a/manifests/x.yaml", &many)]), @r#"
    agents/a/agent.yaml:5:3: error: the agent has 66 objects, 64 are allowed
      |   code: {image: "a@sha256:2c26b46b68ffc68ff99b453c1d30413413422d706483bfa0f98a5e886266e7ae"}
      |   ^
      hint: split it into several agents
    "#);
    assert_snapshot!(with("", &[("agents/a/manifests/x.yaml", "a: {b: yes")]), @r#"
    agents/a/manifests/x.yaml:1:4: error: this is not YAML: unclosed bracket '{'
      | a: {b: yes
      |    ^
    agents/a/manifests/x.yaml:1:8: error: some read `yes` as a boolean, others as text
      | a: {b: yes
      |        ^^^
      hint: write `true`, or `"yes"` for text
    "#);
}

#[test]
fn a_release_that_is_too_large() {
    let large = "x".repeat(500 * 1024);
    let prompts = "  prompts: {one: one.md, two: two.md}\n";
    assert_snapshot!(with(prompts, &[("agents/a/one.md", &large), ("agents/a/two.md", &format!("{large}y"))]), @"
    agents/a/agent.yaml: error: the files of the release have 1024280 bytes together, 921600 are allowed
      hint: the largest is `prompts/two.md` with 512001 bytes
    ");
    assert_snapshot!(with("  prompts: {one: one.md}\n", &[("agents/a/one.md", &large.repeat(3))]), @"
    agents/a/agent.yaml:6:18: error: `agents/a/one.md` has more than 1048576 bytes
      |   prompts: {one: one.md}
      |                  ^^^^^^
    ");
}

// === agents among each other ===

#[test]
fn agents_against_one_another() {
    let image = format!("  code: {{image: \"a@{DIGEST}\"}}\n");
    let tree = small()
        .with("agents/a/agent.yaml", agent("a", &format!("{image}  dependsOn: [b, nobody]\n")))
        .with("agents/b/agent.yaml", agent("b", &format!("{image}  dependsOn: [c]\n")))
        .with("agents/c/agent.yaml", agent("c", &format!("{image}  dependsOn: [a]\n")))
        .with("agents/d/agent.yaml", agent("d", &image).replace("{name: d}", "{name: d, renamedFrom: a}"))
        .with("agents/e/agent.yaml", agent("e", &image).replace("{name: e}", "{name: e, renamedFrom: old}"))
        .with("agents/f/agent.yaml", agent("f", &image).replace("{name: f}", "{name: f, renamedFrom: old}"))
        .with("agents/g/agent.yaml", agent("g", &image))
        .with("agents/g/manifests/x.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n")
        .with("agents/h/agent.yaml", agent("h", &image))
        .with("agents/h/manifests/y.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: i}\n")
        .with("agents/i/agent.yaml", agent("i", &image))
        .with("agents/j/agent.yaml", agent("j", &image));
    let state = resolved(&tree, "prod");
    let told: Vec<_> = state
        .agents
        .iter()
        .map(|(name, agent)| match agent {
            Ok(_) => format!("{name} is good"),
            Err(errors) => told(errors),
        })
        .collect();
    assert_snapshot!(told.join("\n"), @"
    agents/a/agent.yaml:6:15: error: agents wait for one another in a circle: `a`, `b` and `c`
      |   dependsOn: [b, nobody]
      |               ^
    agents/a/agent.yaml:6:18: error: the agent `nobody` is not in this environment
      |   dependsOn: [b, nobody]
      |                  ^^^^^^
    agents/b/agent.yaml:6:15: error: agents wait for one another in a circle: `b`, `c` and `a`
      |   dependsOn: [c]
      |               ^
    agents/c/agent.yaml:6:15: error: agents wait for one another in a circle: `c`, `a` and `b`
      |   dependsOn: [a]
      |               ^
    agents/d/agent.yaml:3:34: error: the agent `a` still exists: this cannot be its new name
      | metadata: {name: d, renamedFrom: a}
      |                                  ^
      hint: take its folder away in the same commit, or this line
    e is good
    agents/f/agent.yaml:3:34: error: `e` says that it was `old` too
      | metadata: {name: f, renamedFrom: old}
      |                                  ^^^
    agents/g/manifests/x.yaml:1:1: error: `ConfigMap/x` is declared by the agent `h` too
      hint: one object belongs to one agent
    agents/h/manifests/y.yaml:1:1: error: `ConfigMap/x` is declared by the agent `g` too
      hint: one object belongs to one agent
    agents/h/manifests/y.yaml:5:1: error: `Deployment/i` is declared by the agent `i` too
      hint: one object belongs to one agent
    agents/i/agent.yaml: error: `Deployment/i` is declared by the agent `h` too
      hint: one object belongs to one agent
    j is good
    ");
}

// === not delivered yet ===

#[test]
fn what_is_not_delivered_is_never_ignored() {
    assert_snapshot!(spec("  route: {hosts: [a.example.com]}\n  drain: {mode: finish}\n  rollout:\n    strategy: {canary: {steps: [{weight: 5, for: 5m}]}}\n    onNewCommit: queue\n    warmUp: 30s\n    analysis: {errors: {preset: error_rate, max: 0.01}}\n    onNoData: hold\n    onUndecided: hold\n    rollback: {bake: 10m}\n"), @"
    agents/a/agent.yaml:6:3: error: `route` is not delivered by this version
      |   route: {hosts: [a.example.com]}
      |   ^^^^^
      hint: take it away until a version delivers it
    agents/a/agent.yaml:7:3: error: `drain` is not delivered by this version
      |   drain: {mode: finish}
      |   ^^^^^
      hint: take it away until a version delivers it
    agents/a/agent.yaml:9:16: error: `rollout.strategy.canary` is not delivered by this version
      |     strategy: {canary: {steps: [{weight: 5, for: 5m}]}}
      |                ^^^^^^
      hint: take it away until a version delivers it
    agents/a/agent.yaml:10:5: error: `rollout.onNewCommit` is not delivered by this version
      |     onNewCommit: queue
      |     ^^^^^^^^^^^
      hint: take it away until a version delivers it
    agents/a/agent.yaml:11:5: error: `rollout.warmUp` is not delivered by this version
      |     warmUp: 30s
      |     ^^^^^^
      hint: take it away until a version delivers it
    agents/a/agent.yaml:12:5: error: `rollout.analysis` is not delivered by this version
      |     analysis: {errors: {preset: error_rate, max: 0.01}}
      |     ^^^^^^^^
      hint: take it away until a version delivers it
    agents/a/agent.yaml:13:5: error: `rollout.onNoData` is not delivered by this version
      |     onNoData: hold
      |     ^^^^^^^^
      hint: take it away until a version delivers it
    agents/a/agent.yaml:14:5: error: `rollout.onUndecided` is not delivered by this version
      |     onUndecided: hold
      |     ^^^^^^^^^^^
      hint: take it away until a version delivers it
    agents/a/agent.yaml:15:5: error: `rollout.rollback` is not delivered by this version
      |     rollback: {bake: 10m}
      |     ^^^^^^^^
      hint: take it away until a version delivers it
    ");
    assert_snapshot!(spec("  rollout: {strategy: {blueGreen: {keepOld: 1h}}}\n"), @"
    agents/a/agent.yaml:6:24: error: `rollout.strategy.blueGreen` is not delivered by this version
      |   rollout: {strategy: {blueGreen: {keepOld: 1h}}}
      |                        ^^^^^^^^^
      hint: take it away until a version delivers it
    ");
    assert_snapshot!(spec("  rollout: {strategy: {abTest: {by: {header: x}}}}\n"), @"
    agents/a/agent.yaml:6:24: error: `rollout.strategy.abTest` is not delivered by this version
      |   rollout: {strategy: {abTest: {by: {header: x}}}}
      |                        ^^^^^^
      hint: take it away until a version delivers it
    ");
    assert_snapshot!(spec("  rollout: {strategy: canary}\n"), @"
    agents/a/agent.yaml:6:23: error: `strategy` cannot be `canary`: `rolling` is expected
      |   rollout: {strategy: canary}
      |                       ^^^^^^
    ");
    assert_snapshot!(wrong(&small().with("agents/a/agent.yaml", agent("a", "  code: {artifact: {path: /dist/a}}\n"))), @"
    agents/a/agent.yaml:5:10: error: `code.artifact` is not delivered by this version
      |   code: {artifact: {path: /dist/a}}
      |          ^^^^^^^^
      hint: take it away until a version delivers it
    ");
}

// === environments ===

fn prod(spec: &str) -> String {
    let text = format!("apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {{name: prod}}\nspec:\n{spec}");
    told(
        &environment(
            &small()
                .with("environments/prod.yaml", text)
                .with("environments/staging.yaml", "spec: {after: {environment: prod, for: 1h}}"),
            &name("prod"),
        )
        .expect_err("a bad environment"),
    )
}

#[test]
fn environments_that_are_wrong() {
    assert_snapshot!(prod("  track: {brnch: main}\n  images: digst\n  agents: [a, a, B]\n  pins: {a: 3f9c2ab1}\n  writeBack: revrt\n  frezes: []\n"), @"
    environments/prod.yaml:5:10: error: `track` needs `branch`, `tag` or `tags`
      |   track: {brnch: main}
      |          ^
      hint: did you mean `branch`?
    environments/prod.yaml:6:11: error: `images` cannot be `digst`: `digest` or `tags` is expected
      |   images: digst
      |           ^^^^^
      hint: did you mean `digest`?
    environments/prod.yaml:7:15: error: `a` stands in `agents` twice
      |   agents: [a, a, B]
      |               ^
    environments/prod.yaml:7:18: error: `B` cannot be the name of an agent: only lower-case letters, digits and `-` are allowed
      |   agents: [a, a, B]
      |                  ^
      hint: for example `support`
    environments/prod.yaml:8:13: error: `3f9c2ab1` cannot be a commit: the full id is expected, 40 lower-case hex digits
      |   pins: {a: 3f9c2ab1}
      |             ^^^^^^^^
      hint: for example `3f9c2ab1d0f64a1b8e7c5d2f9a0b1c2d3e4f5a6b`
    environments/prod.yaml:9:14: error: `writeBack` cannot be `revrt`: `revert`, `pin`, `pullRequest` or `none` is expected
      |   writeBack: revrt
      |              ^^^^^
      hint: did you mean `revert`?
    environments/prod.yaml:10:3: error: unknown field `frezes` in `spec`
      |   frezes: []
      |   ^^^^^^
      hint: did you mean `freezes`?
    ");
    assert_snapshot!(prod("  track: {branch: main, tag: v1}\n"), @"
    environments/prod.yaml:5:25: error: unknown field `tag` in `track`
      |   track: {branch: main, tag: v1}
      |                         ^^^
      hint: allowed here: `branch`
    ");
    assert_snapshot!(prod("  track: main\n  after: {environment: staging}\n"), @"
    environments/prod.yaml:5:10: error: `track` is text, `{branch}`, `{tag}` or `{tags}` is expected
      |   track: main
      |          ^^^^
    environments/prod.yaml:6:10: error: `for` is missing in `after`
      |   after: {environment: staging}
      |          ^
    ");
    assert_snapshot!(prod("  track: {tags: v1.4.2, exclude: [v1.4.2]}\n"), @"
    environments/prod.yaml:5:25: error: every tag would be excluded by `v1.4.2`
      |   track: {tags: v1.4.2, exclude: [v1.4.2]}
      |                         ^^^^^^^
    ");
    assert_snapshot!(prod("  waves: {maxAgents: 4}\n  freezes: [{cron: \"0 17 * * FRI\", for: 64h}]\n  approvals: {required: 1}\n  writeBack: pullRequest\n"), @r#"
    environments/prod.yaml:5:3: error: `waves` is not delivered by this version
      |   waves: {maxAgents: 4}
      |   ^^^^^
      hint: take it away until a version delivers it
    environments/prod.yaml:6:3: error: `freezes` is not delivered by this version
      |   freezes: [{cron: "0 17 * * FRI", for: 64h}]
      |   ^^^^^^^
      hint: take it away until a version delivers it
    environments/prod.yaml:7:15: error: `approvals` is not delivered by this version
      |   approvals: {required: 1}
      |               ^^^^^^^^
      hint: take it away until a version delivers it
    environments/prod.yaml:8:3: error: `writeBack: pullRequest` is not delivered by this version
      |   writeBack: pullRequest
      |   ^^^^^^^^^
      hint: take it away until a version delivers it
    "#);
    assert_snapshot!(prod("  after: {environment: stagin, for: 1h}\n"), @"
    environments/prod.yaml:5:24: error: the environment `stagin` does not exist
      |   after: {environment: stagin, for: 1h}
      |                        ^^^^^^
      hint: did you mean `staging`?
    ");
    assert_snapshot!(prod("  after: {environment: staging, for: 1h}\n"), @"
    environments/prod.yaml:5:24: error: `prod` waits for `staging`, which waits for `prod` in the end
      |   after: {environment: staging, for: 1h}
      |                        ^^^^^^^
    ");
    assert_snapshot!(prod("  after: {environment: prod, for: 1h}\n"), @"
    environments/prod.yaml:5:24: error: `prod` cannot wait for itself
      |   after: {environment: prod, for: 1h}
      |                        ^^^^
    ");
    assert_snapshot!(told(&environment(&small(), &name("prdo")).expect_err("none")), @"
    environments/prdo.yaml: error: the environment `prdo` does not exist
      hint: did you mean `prod`?
    ");
    assert_snapshot!(told(&environment(&MemoryTree::default(), &name("prod")).expect_err("none")), @"
    environments/prod.yaml: error: the environment `prod` does not exist
      hint: write `environments/<name>.yaml`
    ");
    let other = small().with(
        "environments/prod.yaml",
        "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: production}\n",
    );
    assert_snapshot!(told(&environment(&other, &name("prod")).expect_err("another name")), @"
    environments/prod.yaml:3:18: error: the environment calls itself `production`, its file `prod`
      | metadata: {name: production}
      |                  ^^^^^^^^^^
      hint: write `name: prod`
    ");
    assert_snapshot!(told(&environments(&small().with("environments/Prod.yaml", "").with("environments/dev.yml", "")).expect_err("names")), @"
    environments/Prod.yaml: error: `Prod` cannot be the name of an environment: only lower-case letters, digits and `-` are allowed
    environments/dev.yml: error: this file is not read
      hint: call it `.yaml`
    ");
}

#[test]
fn environments_that_name_nobody() {
    let text =
        "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {name: prod}\nspec:\n  agents: [a, suport]\n";
    let tree = small().with("environments/prod.yaml", text).with("agents/support/agent.yaml", "x");
    assert_snapshot!(told(&resolved(&tree, "prod").warnings), @"
    environments/prod.yaml:5:15: warning: the agent `suport` does not exist
      |   agents: [a, suport]
      |               ^^^^^^
      hint: did you mean `support`?
    ");
}

#[test]
fn variables_that_are_wrong() {
    assert_snapshot!(with("", &[("environments/prod/variables.yaml", "A: 1\nB-C: x\nD: {secret: x}\n")]), @r#"
    environments/prod/variables.yaml:1:4: error: `A` is a number, text, `{secret, key}` or `{field}` is expected
      | A: 1
      |    ^
      hint: write it in quotes: `"1"`
    environments/prod/variables.yaml:2:1: error: `B-C` cannot be the name of an environment variable
      | B-C: x
      | ^^^
      hint: for example `LOG_LEVEL`
    environments/prod/variables.yaml:3:4: error: `key` is missing in `D`
    "#);
}

#[test]
fn pins_that_cannot_be_kept() {
    let text = format!(
        "apiVersion: backstay.dev/v1alpha1\nkind: Environment\nmetadata: {{name: prod}}\nspec:\n  pins: {{a: {:040x}}}\n",
        u128::MAX
    );
    assert_snapshot!(wrong(&small().with("environments/prod.yaml", text)), @"
    environments/prod.yaml:5:13: error: the commit that `a` is pinned to was not found
      |   pins: {a: 00000000ffffffffffffffffffffffffffffffff}
      |             ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      hint: it must be reachable from a branch or a tag
    ");
}

// === consents ===

#[test]
fn consents_that_are_wrong() {
    let tree = small()
        .with("consent/a.yaml", "agent: a\nenvironment: prod\nallow: retry\nrelease: r-3f9c2ab1d0f6\nexpires: 2027-01-01\n")
        .with("consent/b.yaml", "agent: a\nenvironment: prod\nallow: retri\nexpires: never\nreason: x\n")
        .with("consent/c.yaml", "agent: a\nenvironment: prod\nallow: adopt\nexpires: 2027-01-01\n")
        .with("consent/d.yaml", "agent: a\nenvironment: prod\nallow: prune\nobject: ConfigMap/x\nrelease: r-3f9c2ab1d0f6\nexpires: 2027-01-01\n")
        .with("consent/e.yaml", "agent: a\nenvironment: prod\nallow: lossyDown\nobject: ConfigMap/x\nexpires: 2027-01-01\n")
        .with("consent/f.yaml", "agent: a\nenvironment: prod\nallow: retry\nexpires: 2027-01-01\n")
        .with("consent/g.yaml", "agent: a\nenvironment: prod\nallow: replace\nobject: service\nexpires: 2027-01-01\n")
        .with("consent/h.txt", "x")
        .with("consent/README.md", "x");
    let (good, bad) = consents(&tree);
    assert_eq!(good.len(), 1);
    assert_snapshot!(told(&bad), @"
    consent/b.yaml:3:8: error: `allow` cannot be `retri`: `retry`, `adopt`, `prune`, `replace` or `lossyDown` is expected
      | allow: retri
      |        ^^^^^
      hint: did you mean `retry`?
    consent/b.yaml:4:10: error: `never` cannot be a date or a time: a date, or a time after RFC 3339, is expected
      | expires: never
      |          ^^^^^
      hint: for example `2027-01-14`
    consent/b.yaml:5:1: error: unknown field `reason` in the file
      | reason: x
      | ^^^^^^
      hint: allowed here: `agent`, `allow`, `environment`, `expires`, `object` and `release`
    consent/c.yaml:3:8: error: `object` is missing: it says what is allowed
      | allow: adopt
      |        ^^^^^
    consent/d.yaml:5:1: error: `release` does not go with this deed
      | release: r-3f9c2ab1d0f6
      | ^^^^^^^
    consent/e.yaml:4:1: error: `object` does not go with this deed
      | object: ConfigMap/x
      | ^^^^^^
    consent/f.yaml:3:8: error: `release` is missing: it says what is allowed
      | allow: retry
      |        ^^^^^
    consent/g.yaml:4:9: error: `service` cannot be an object: its kind and its name are expected
      | object: service
      |         ^^^^^^^
      hint: for example `ConfigMap/support-settings`
    consent/h.txt: error: this is no file of a consent
      hint: `consent/` holds `.yaml` files, each with one consent
    ");
    let state = resolved(&tree, "prod");
    assert_eq!((state.consents.len(), state.warnings.0.len()), (1, bad.0.len()));
}

// === the tree itself ===

/// A tree with one thing in it that is refused.
#[derive(Debug)]
struct Evil {
    files: MemoryTree,
    at: &'static str,
}

impl Evil {
    fn refuse(&self, path: &str) -> Result<(), TreeError> {
        if path == self.at {
            return Err(TreeError::LfsPointer { path: path.to_owned() });
        }
        Ok(())
    }
}

impl Tree for Evil {
    fn find(&self, path: &str) -> Result<Option<backstay::source::Entry>, TreeError> {
        self.files.find(path)
    }

    fn list(&self, path: &str) -> Result<Vec<backstay::source::Entry>, TreeError> {
        self.refuse(path)?;
        self.files.list(path)
    }

    fn read(&self, path: &str, limit: usize) -> Result<Option<std::sync::Arc<[u8]>>, TreeError> {
        self.refuse(path)?;
        self.files.read(path, limit)
    }
}

#[test]
fn what_the_tree_refuses_is_an_error_of_the_agent_that_needs_it() {
    let lines = "  prompts: {p: p.md}\n  tools: {t: t.json}\n  models: {m: {use: fast}}\n  memory: {database: {secret: s, key: k}, migrations: m}\n";
    let files = || {
        small()
            .with("agents/a/agent.yaml", with_image(lines))
            .with("agents/a/p.md", "x")
            .with(
                "agents/a/t.json",
                "{\"name\": \"t\", \"description\": \"d\", \"inputSchema\": {\"type\": \"object\"}}",
            )
            .with("agents/a/m/1_a.up.sql", "A;")
            .with("agents/a/m/1_a.down.sql", "a;")
            .with("agents/a/manifests/x.yaml", "")
            .with("agents/a/flags.json", "{\"flags\": {}}")
            .with("shared/models.yaml", "fast: {provider: p, model: m}\n")
            .with("environments/prod/a.yaml", "")
    };
    assert!(resolved(&files(), "prod").agents[&name("a")].is_ok());
    let places = [
        "agents/a/agent.yaml",
        "agents/a/p.md",
        "agents/a/t.json",
        "agents/a/m",
        "agents/a/m/1_a.up.sql",
        "agents/a/manifests",
        "agents/a/manifests/x.yaml",
        "agents/a/flags.json",
        "shared/models.yaml",
        "environments/prod/a.yaml",
        "agents",
        "backstay.yaml",
        "environments/prod",
        "environments/prod.yaml",
        "consent",
    ];
    for place in places {
        let tree = Evil { files: files(), at: place };
        let told = match at(&mut backstay::desired::Cache::default(), &tree, "prod", 1) {
            Err(errors) => told(&errors),
            Ok(state) => match &state.agents[&name("a")] {
                Err(errors) => told(errors),
                Ok(_) => told(&state.warnings),
            },
        };
        assert!(told.contains("is a Git LFS pointer, the file itself is expected"), "{place}: {told}");
    }
}
