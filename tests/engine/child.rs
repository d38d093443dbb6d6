//! Builds in processes of their own: this test program started again, asked by variables for one build.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use dockless::base::Progress;
use dockless::engine::{Dest, Engine, Export, LayerOptions, LocalEngine, Plan};

use crate::fixture::{World, open_state, plan, request};

const STATE: &str = "DOCKLESS_TEST_STATE";
const CONTEXT: &str = "DOCKLESS_TEST_CONTEXT";
const TEXT: &str = "DOCKLESS_TEST_DOCKERFILE";
const NAME: &str = "DOCKLESS_TEST_NAME";
const TAR: &str = "DOCKLESS_TEST_TAR";

/// Starts a build; its image gets `name`, its files go to `tar`.
pub fn build(world: &World, dockerfile: &str, name: &str, tar: Option<&Path>) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "child::one_build", "--nocapture", "--quiet"])
        .env(STATE, world.state.dir())
        .env(CONTEXT, world.context())
        .env(TEXT, dockerfile)
        .env(NAME, name)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if let Some(tar) = tar {
        command.env(TAR, tar);
    }
    command.spawn().unwrap()
}

/// Waits; a failure is told with what the process said.
pub fn finish(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
}

/// What a child runs. In the suite itself nothing is asked of it.
#[test]
fn one_build() {
    let Ok(state) = std::env::var(STATE) else { return };
    let var = |name: &str| std::env::var(name).unwrap();
    let mut request = request(Progress::none());
    request.plan = Plan::Dockerfile(Box::new(plan(Path::new(&var(CONTEXT)), &var(TEXT))));
    request.exports =
        vec![Export::Image { names: vec![var(NAME).parse().unwrap()], push: false, options: LayerOptions::default() }];
    if let Ok(tar) = std::env::var(TAR) {
        request.exports.push(Export::Tar { dest: Dest::File(tar.into()) });
    }
    if let Err(error) = LocalEngine::new(open_state(Path::new(&state))).solve(&request) {
        panic!("{error:#}");
    }
}
