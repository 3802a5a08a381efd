//! What Java calls: the methods of `ai.polyphony.Agent` (`node-agent/android/app`), by the names that the Java Native Interface gives them.

use std::path::Path;
use std::sync::LazyLock;

use jni::objects::{JByteArray, JClass, JString};
use jni::sys::jint;
use jni::{Env, EnvUnowned, jni_mangle};
use polyphony_agent::app::{App, read_code as read, read_link};

/// An app is one process, and its agent one.
static APP: LazyLock<App> = LazyLock::new(App::default);

/// A fault on Java's side ends its call by an exception, so that it is seen.
type OnFault = jni::errors::ThrowRuntimeExAndDefault;
/// A picture that the reader of codes trips over is one without a code.
type OnUnreadable = jni::errors::LogErrorAndDefault;

/// Null, or why the agent does not start.
#[jni_mangle("ai.polyphony.Agent")]
pub extern "system" fn start<'local>(
    mut env: EnvUnowned<'local>,
    _class: JClass<'local>,
    data_dir: JString<'local>,
    phone_name: JString<'local>,
    join_link: JString<'local>,
) -> JString<'local> {
    let start = |env: &mut Env<'local>| -> jni::errors::Result<_> {
        let (data_dir, name) = (data_dir.try_to_string(env)?, phone_name.try_to_string(env)?);
        let link = (!join_link.is_null()).then(|| join_link.try_to_string(env)).transpose()?;
        match APP.start(Path::new(&data_dir), &name, link.as_deref()) {
            Ok(()) => Ok(JString::null()),
            Err(error) => env.new_string(error.to_string()),
        }
    };
    env.with_env(start).resolve::<OnFault>()
}

/// Null, or why nobody can join by a text.
#[jni_mangle("ai.polyphony.Agent")]
pub extern "system" fn link_fault<'local>(
    mut env: EnvUnowned<'local>,
    _class: JClass<'local>,
    join_link: JString<'local>,
) -> JString<'local> {
    let fault = |env: &mut Env<'local>| -> jni::errors::Result<_> {
        match read_link(&join_link.try_to_string(env)?) {
            Ok(_) => Ok(JString::null()),
            Err(fault) => env.new_string(fault.to_string()),
        }
    };
    env.with_env(fault).resolve::<OnFault>()
}

#[jni_mangle("ai.polyphony.Agent")]
pub extern "system" fn stop<'local>(mut env: EnvUnowned<'local>, _class: JClass<'local>, leave: bool) {
    let stop = |_: &mut Env<'local>| -> jni::errors::Result<()> {
        APP.stop(leave);
        Ok(())
    };
    env.with_env(stop).resolve::<OnFault>();
}

#[jni_mangle("ai.polyphony.Agent")]
pub extern "system" fn tell<'local>(mut env: EnvUnowned<'local>, _class: JClass<'local>, json: JString<'local>) {
    let tell = |env: &mut Env<'local>| -> jni::errors::Result<()> {
        let json = json.try_to_string(env)?;
        if let Err(error) = APP.tell(&json) {
            tracing::warn!(%error, %json, "nothing of it counts");
        }
        Ok(())
    };
    env.with_env(tell).resolve::<OnFault>();
}

#[jni_mangle("ai.polyphony.Agent")]
pub extern "system" fn status<'local>(mut env: EnvUnowned<'local>, _class: JClass<'local>) -> JString<'local> {
    let status = |env: &mut Env<'local>| -> jni::errors::Result<_> {
        // It has names and numbers alone.
        let json = serde_json::to_string(&APP.status()).unwrap_or_default();
        env.new_string(json)
    };
    env.with_env(status).resolve::<OnFault>()
}

/// The text of a code in a picture, or null.
#[jni_mangle("ai.polyphony.Agent")]
pub extern "system" fn read_code<'local>(
    mut env: EnvUnowned<'local>,
    _class: JClass<'local>,
    luma: JByteArray<'local>,
    width: jint,
    height: jint,
) -> JString<'local> {
    let found = |env: &mut Env<'local>| -> jni::errors::Result<_> {
        let luma = env.convert_byte_array(&luma)?;
        let size = |side: jint| usize::try_from(side).unwrap_or_default();
        match read(&luma, size(width), size(height)) {
            Some(text) => env.new_string(text),
            None => Ok(JString::null()),
        }
    };
    env.with_env(found).resolve::<OnUnreadable>()
}
