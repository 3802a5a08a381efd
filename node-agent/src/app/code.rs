//! Codes that a camera sees.

/// The text of the first QR code that can be read in a picture of which `luma` has the brightness, a byte a pixel, row by row.
pub fn read(luma: &[u8], width: usize, height: usize) -> Option<String> {
    let is_picture = width > 0 && height > 0 && width.checked_mul(height) == Some(luma.len());
    if !is_picture {
        return None;
    }
    let mut picture = rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| luma[y * width + x]);
    picture.detect_grids().into_iter().find_map(|grid| Some(grid.decode().ok()?.1))
}

#[cfg(test)]
mod tests {
    use qrcode::{Color, EcLevel, QrCode};

    use super::*;

    /// A grey picture with a code on it, a little noisy, as a camera has it.
    fn picture(text: &str, width: usize, height: usize, scale: usize) -> Vec<u8> {
        let code = QrCode::with_error_correction_level(text, EcLevel::L).expect("it is short");
        let n = code.width();
        let (left, top) = ((width - n * scale) / 2, (height - n * scale) / 3);
        let shade = |at: usize| {
            let (x, y) = (at % width, at / width);
            let is_code = (left..left + n * scale).contains(&x) && (top..top + n * scale).contains(&y);
            let is_dark = is_code && code[((x - left) / scale, (y - top) / scale)] == Color::Dark;
            (if is_dark { 60 } else { 180 }) + (at * 7919 % 23) as u8
        };
        (0..width * height).map(shade).collect()
    }

    #[test]
    fn a_link_is_read_off_a_camera_s_picture() {
        let link = "polyphony://192.168.100.100:7700?token=abcdef.abcdefghijklmnopqrstuvwxyz234567&ca-hash=sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
        assert_eq!(read(&picture(link, 640, 480, 6), 640, 480).as_deref(), Some(link));
        assert_eq!(read(&vec![128; 640 * 480], 640, 480), None);
    }

    #[test]
    fn what_is_no_picture_has_no_code() {
        for (n, width, height) in [(0, 0, 0), (5, 2, 2), (4, 0, 4), (1, usize::MAX, usize::MAX), (4, 2, 2), (3, 1, 3)] {
            assert_eq!(read(&vec![0; n], width, height), None, "{n} bytes, {width} × {height}");
        }
    }
}
