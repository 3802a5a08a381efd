//! Memory of a load: what a segment holds, and hardly more on the way there.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;

use polyphony_agent::segment::{Capacity, Segment, SegmentError};
use polyphony_kernels::FileBytes;
use polyphony_model::{Holds, Manifest, TensorReader};
use polyphony_protocol::ActivationType;

use crate::golden::CPU;
use crate::gguf_writer::{self, Value};

/// Counts what each thread has, and the most that it had.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

thread_local! {
    static LIVE: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(more: isize) {
    // A thread that ends has no counters any more.
    let _ = LIVE.try_with(|live| {
        live.set(live.get() + more);
        let _ = MOST.try_with(|most| most.set(most.get().max(live.get())));
    });
}

// SAFETY: all is done by the system's allocator; what is counted has no say in it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promises.
        unsafe { System.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size as isize - layout.size() as isize);
        // SAFETY: as the caller promises.
        unsafe { System.realloc(ptr, layout, new_size) }
    }
}

/// A tensor that stays on the disk.
struct OnDisk(TensorReader);

impl FileBytes for OnDisk {
    fn n_bytes(&self) -> usize {
        self.0.n_bytes() as usize
    }

    fn read_at(&self, at: usize, out: &mut [u8]) -> io::Result<()> {
        self.0.read_at(at as u64, out)
    }
}

const MIB: isize = 1 << 20;

#[test]
fn a_load_takes_hardly_more_memory_than_what_it_loads() {
    // An embedding of 8 MiB and a layer with matrices of 4, of which gate and way up become one of 8.
    let mut file = gguf_writer::llama();
    for (key, value) in [("embedding_length", 512), ("feed_forward_length", 2048)] {
        file.set(&format!("llama.{key}"), Value::U32(value));
    }
    let wider = |size: u64| match size {
        // Heads, hidden state, feed-forward, vocabulary.
        16 => 256,
        32 => 512,
        64 => 2048,
        _ => 4096,
    };
    let tensors = std::mem::take(&mut file.tensors);
    file.data.clear();
    for tensor in tensors {
        file.add_f32(&tensor.name, &tensor.shape.into_iter().map(wider).collect::<Vec<_>>());
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("wide.gguf");
    std::fs::write(&path, file.bytes()).unwrap();
    drop(file);
    let manifest = Manifest::build(&path).unwrap();
    let capacity = Capacity { n_slots: 1, n_positions: 8, max_rows: 1 };
    let engine = polyphony_kernels::open(CPU, None).unwrap();

    let before = LIVE.get();
    MOST.set(before);
    let segment = Segment::load(engine, &manifest, Holds::all(1), capacity, ActivationType::F16, |tensor| {
        Ok::<_, SegmentError>(OnDisk(TensorReader::open(&path, &manifest, tensor).unwrap()))
    });
    let (segment, after, most) = (segment.unwrap(), LIVE.get(), MOST.get());
    let loaded = manifest.bytes_of(&segment.holds()) as isize;
    assert!(after - before >= loaded, "{} bytes of {loaded} are counted", after - before);
    // Pieces of 256 KiB on the way; a matrix that is in memory twice would be 8 MiB more.
    assert!(most - after < MIB, "{} bytes more on the way", most - after);
}
