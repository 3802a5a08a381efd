//! Writes the field reference into the file named by its first argument, with the manifest named by its second as example.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(page), Some(example)) = (arguments.next(), arguments.next()) else {
        return Err("name the file to write, and the manifest that it shows".into());
    };
    std::fs::write(page, polyphony_api::fields::page(&std::fs::read_to_string(example)?)?)?;
    Ok(())
}
