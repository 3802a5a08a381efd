//! Writes the custom resource definitions into the folder named by its argument.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("name the folder to write to")?;
    for (file, definition) in polyphony_api::crds::all() {
        std::fs::write(std::path::Path::new(&folder).join(file), polyphony_api::crds::to_yaml(&definition)?)?;
    }
    Ok(())
}
