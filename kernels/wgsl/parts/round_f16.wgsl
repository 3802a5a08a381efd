// Rounding of a row to f16 with one power of two.

const MAGNITUDE: u32 = 0x7fffffffu;
const INFINITY: u32 = 0x7f800000u;

var<workgroup> maxima: array<u32, 64>;

// Rounds the last `dropped` bits away, to nearest, ties to even; a carry goes on into the exponent as it should.
fn round_bits(magnitude: u32, dropped: u32) -> u32 {
    let last_kept = (magnitude >> dropped) & 1u;
    return ((magnitude + (1u << (dropped - 1u)) - 1u + last_kept) >> dropped) << dropped;
}

fn round_row(at: u32, lane: u32) {
    var largest = 0u;
    for (var i = lane; i < params.width; i = i + 64u) {
        largest = max(largest, x[at + i] & MAGNITUDE);
    }
    maxima[lane] = largest;
    for (var half = 32u; half > 0u; half = half / 2u) {
        workgroupBarrier();
        if lane < half {
            maxima[lane] = max(maxima[lane], maxima[lane + half]);
        }
    }
    workgroupBarrier();
    largest = maxima[0];
    // From here on rounding m to 11 significant bits would give infinity.
    let finite = largest < INFINITY - 0x1000u;
    let m_exponent = round_bits(min(largest, INFINITY), 13u) >> 23u;
    for (var i = lane; i < params.width && finite; i = i + 64u) {
        let bits = x[at + i];
        let magnitude = bits & MAGNITUDE;
        let exponent = magnitude >> 23u;
        // The spacing is 2^(log2 m - 38), the last bit of |x| 2^(log2 |x| - 23): so many bits fall away, 13 at least.
        let dropped = max(m_exponent, exponent + 28u) - exponent - 15u;
        var rounded = 0u;
        if exponent == 0u {
            rounded = 0u;
        } else if dropped < 23u {
            rounded = round_bits(magnitude, dropped);
        } else if dropped == 23u {
            rounded = ((magnitude + 0x400000u) >> 23u) << 23u;
        } else if dropped == 24u && (magnitude & 0x7fffffu) != 0u {
            rounded = (exponent + 1u) << 23u;
        }
        x[at + i] = (bits & ~MAGNITUDE) | rounded;
    }
}
