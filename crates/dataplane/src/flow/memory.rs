//! The memory that a flow table lies in: a header, the tags, the records. Its owner is the heap, or
//! a map that another reader maps as well.
//!
//! Everything in it is a word that is read and written as a whole. `bpf/flows.h` has the same layout.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed, Ordering::Release};

use prefetch_index::prefetch_index;
use yoke::Yoke;

use super::entry::{LINE, Line, Record, Tags, WAYS};
use super::table::FlowTable;

/// Words that live as long as their owner, and always at the same place.
pub trait Words: Send + Sync {
    /// The words.
    fn words(&self) -> &[AtomicU64];
}

/// Memory for a table: lines of 64 bytes, all zero at first.
pub struct FlowMemory {
    owner: Arc<dyn Words>,
    tags: Yoke<&'static [Tags], Arc<dyn Words>>,
    records: Yoke<&'static [Line], Arc<dyn Words>>,
    capacity: usize,
}

/// Memory in which no table of this capacity fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a flow table needs {needed} words of memory in lines of 64 bytes, and there are {words}")]
pub struct WrongMemory {
    /// Words that there are.
    pub words: usize,
    /// Words that the table takes.
    pub needed: usize,
}

impl FlowMemory {
    /// How many words of 8 bytes a table for `capacity` flows takes: 8 times a number of lines.
    pub fn words_for(capacity: usize) -> usize {
        let buckets = buckets_for(capacity);
        (HEADER_LINES + tag_lines(buckets) + buckets * WAYS) * LINE
    }

    /// Memory of the heap for `capacity` flows (1 to 2^30).
    pub fn heap(capacity: usize) -> Self {
        let owner: Arc<dyn Words> = Arc::new(Heap::new(Self::words_for(capacity)));
        Self::parts(capacity, owner)
    }

    /// The memory of `owner` for `capacity` flows (1 to 2^30). What it held is lost.
    ///
    /// # Errors
    /// [`WrongMemory`] if it is too small, or does not begin where a line of the cache does.
    pub fn over(capacity: usize, owner: Arc<dyn Words>) -> Result<Self, WrongMemory> {
        let needed = Self::words_for(capacity);
        let words = owner.words();
        if words.len() < needed || misplaced(words) != 0 {
            return Err(WrongMemory { words: words.len(), needed });
        }
        words.iter().for_each(|word| word.store(0, Relaxed));
        Ok(Self::parts(capacity, owner))
    }

    /// Of memory that is large enough.
    fn parts(capacity: usize, owner: Arc<dyn Words>) -> Self {
        let capacity = capacity.clamp(1, MAX_CAPACITY);
        let buckets = buckets_for(capacity);
        let first_record = (HEADER_LINES + tag_lines(buckets)) * LINE;
        let tags = Yoke::attach_to_cart(Arc::clone(&owner), |owner| {
            let (pairs, _) = section(owner, HEADER_LINES * LINE..first_record).as_chunks();
            pairs.get(..buckets).unwrap_or(&[])
        });
        let records = Yoke::attach_to_cart(Arc::clone(&owner), |owner| {
            let end = first_record + buckets * WAYS * LINE;
            section(owner, first_record..end).as_chunks().0
        });
        Self { owner, tags, records, capacity }
    }

    /// Takes over what the memory of a table of the same capacity holds, but for the header.
    fn copy_from(&self, other: &Self) {
        let words = |memory: &Self| memory.owner.words().len().min(Self::words_for(self.capacity));
        let range = HEADER_LINES * LINE..words(self).min(words(other));
        let pairs = section(&*self.owner, range.clone()).iter().zip(section(&*other.owner, range));
        for (word, other) in pairs {
            word.store(other.load(Relaxed), Relaxed);
        }
    }

    /// The number of flows that it is made for.
    pub(super) const fn capacity(&self) -> usize {
        self.capacity
    }

    /// The number of buckets.
    #[inline]
    pub(super) fn buckets(&self) -> usize {
        self.tags.get().len()
    }

    /// The number of entries.
    #[cfg(test)]
    pub(super) fn entries(&self) -> usize {
        self.records.get().len()
    }

    /// Has the header say what a reader needs to look flows up, the number of buckets last: the keys of
    /// the hash, and after how many milliseconds an established and a UDP flow are over.
    pub(super) fn describe(&self, keys: [u64; 6], [established, udp]: [u32; 2]) {
        let idle = u64::from(established) << 32 | u64::from(udp);
        let words = keys.into_iter().chain([idle, self.buckets() as u64]);
        for (word, value) in section(&*self.owner, 0..HEADER_LINES * LINE).iter().zip(words) {
            word.store(value, Release);
        }
    }

    /// The tags of a bucket.
    #[inline]
    pub(super) fn tags(&self, bucket: u32) -> Option<&Tags> {
        self.tags.get().get(bucket as usize)
    }

    /// An entry.
    #[inline]
    pub(super) fn record(&self, at: u32) -> Option<Record<'_>> {
        self.records.get().get(at as usize).map(Record)
    }

    /// The entries of `count` buckets from bucket `from` on.
    pub(super) fn records(&self, from: usize, count: usize) -> impl Iterator<Item = Record<'_>> {
        self.records.get().chunks(WAYS).skip(from).take(count).flatten().map(Record)
    }

    /// All entries, for as long as anyone has them.
    pub(super) fn lines(&self) -> Yoke<&'static [Line], Arc<dyn Words>> {
        self.records.clone()
    }

    /// Brings the tags of a bucket into the cache.
    #[inline]
    pub(super) fn prefetch_tags(&self, bucket: u32) {
        prefetch_index(*self.tags.get(), bucket as usize);
    }

    /// Brings an entry into the cache.
    #[inline]
    pub(super) fn prefetch_record(&self, at: u32) {
        prefetch_index(*self.records.get(), at as usize);
    }

    /// Where it lies.
    pub(super) fn range(&self) -> Range<*const u8> {
        let words = self.owner.words().as_ptr_range();
        words.start.cast()..words.end.cast()
    }
}

impl fmt::Debug for FlowMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowMemory").field("buckets", &self.buckets()).finish_non_exhaustive()
    }
}

impl FlowTable {
    /// Moves the table to memory of `owner`, for another reader; every entry stays where it is.
    ///
    /// # Errors
    /// [`WrongMemory`]: it stays where it was.
    pub fn move_to(&mut self, owner: Arc<dyn Words>) -> Result<(), WrongMemory> {
        let memory = FlowMemory::over(self.memory.capacity, owner)?;
        memory.copy_from(&self.memory);
        self.memory = memory;
        // Last: before it, a reader finds no table.
        self.memory.describe(self.hash.keys(), self.idle.of_known());
        Ok(())
    }
}

/// Words of the heap, in lines of the cache.
struct Heap {
    words: Box<[AtomicU64]>,
    start: usize,
}

impl Heap {
    fn new(len: usize) -> Self {
        let words: Box<[_]> = (0..len + LINE - 1).map(|_| AtomicU64::new(0)).collect();
        let start = misplaced(&words);
        Self { words, start }
    }
}

impl Words for Heap {
    fn words(&self) -> &[AtomicU64] {
        self.words.get(self.start..).unwrap_or(&[])
    }
}

/// Words in front of the first line.
fn misplaced(words: &[AtomicU64]) -> usize {
    let bytes = words.as_ptr().addr().wrapping_neg() % (LINE * WORD);
    bytes / WORD
}

fn section(owner: &(impl Words + ?Sized), range: Range<usize>) -> &[AtomicU64] {
    owner.words().get(range).unwrap_or(&[])
}

/// Buckets of a table for so many flows.
fn buckets_for(capacity: usize) -> usize {
    let capacity = capacity.clamp(1, MAX_CAPACITY);
    let entries = capacity + capacity.div_ceil(SPARE_PART);
    entries.div_ceil(WAYS).max(MIN_BUCKETS)
}

const fn tag_lines(buckets: usize) -> usize {
    buckets.div_ceil(LINE / TAG_WORDS)
}

const WORD: usize = size_of::<AtomicU64>();
const TAG_WORDS: usize = size_of::<Tags>() / WORD;
const HEADER_LINES: usize = 1;

/// A fourth more entries than `capacity`, so that it can be filled: at this load fewer than 1 in
/// 100,000 is refused.
const SPARE_PART: usize = 4;

/// Entry indices are 32 bits.
const MAX_CAPACITY: usize = 1 << 30;

/// Two, or a key had one candidate only.
const MIN_BUCKETS: usize = 2;

#[cfg(test)]
mod tests {
    use super::*;

    struct Given(Heap, Range<usize>);

    impl Words for Given {
        fn words(&self) -> &[AtomicU64] {
            &self.0.words()[self.1.clone()]
        }
    }

    fn given(words: usize, skipped: usize) -> Arc<Given> {
        let given = Given(Heap::new(words + skipped), skipped..skipped + words);
        given.words().iter().for_each(|word| word.store(u64::MAX, Relaxed));
        Arc::new(given)
    }

    #[test]
    fn parts_lie_in_lines_and_do_not_overlap() {
        for capacity in [1, 63, 1000, 20_001] {
            let memory = FlowMemory::heap(capacity);
            let buckets = memory.buckets();
            let start = memory.range().start.addr();
            let of = |word: &AtomicU64| std::ptr::from_ref(word).addr() - start;
            assert_eq!(start % 64, 0);
            assert_eq!(of(&memory.tags(0).unwrap()[0]), 64);
            let last_tags = of(&memory.tags(u32::try_from(buckets - 1).unwrap()).unwrap()[1]);
            let first_record = of(&memory.records(0, 1).next().unwrap().0[0]);
            assert_eq!(first_record, (last_tags + 8).next_multiple_of(64));
            assert_eq!(memory.entries(), buckets * WAYS);
            let words = FlowMemory::words_for(capacity) * 8;
            assert_eq!(first_record + memory.entries() * 64, words);
        }
    }

    #[test]
    fn the_header_says_how_to_look_flows_up() {
        let memory = FlowMemory::heap(1000);
        memory.describe([1, 2, 3, 4, 5, 6], [7, 8]);
        let header = &memory.owner.words()[..8];
        let header: Vec<u64> = header.iter().map(|word| word.load(Relaxed)).collect();
        assert_eq!(header, [1, 2, 3, 4, 5, 6, 7 << 32 | 8, memory.buckets() as u64]);
    }

    #[test]
    fn a_table_moves_with_all_that_it_holds() {
        use crate::flow::{NewFlow, Origin, Timeouts};
        let mut table = FlowTable::new(100, 1, &Timeouts::default());
        let now = crate::tick::Tick::from_nanos(1);
        for number in 0..100 {
            let key = crate::flow::tests::key(number);
            let new = NewFlow { origin: Origin::Udp, ..crate::flow::tests::flow(Origin::Udp) };
            let key = crate::key::FlowKey { protocol: crate::key::Protocol::Udp, ..key };
            table.insert(table.hash(&key), &key, &new, now, &mut |_| ()).unwrap();
        }
        let dump = |table: &FlowTable| -> Vec<_> { table.page(0, 100, None, now).collect() };
        let before = dump(&table);
        table.move_to(given(FlowMemory::words_for(99) - 1, 0)).unwrap_err();
        let owner = given(FlowMemory::words_for(100), 0);
        table.move_to(Arc::<Given>::clone(&owner)).unwrap();
        assert_eq!((dump(&table), before.len()), (before.clone(), 100));
        let buckets = owner.words()[7].load(Relaxed);
        assert_eq!(buckets, table.buckets() as u64, "readers know");
    }

    #[test]
    fn given_memory_is_taken_if_a_table_fits_and_emptied() {
        let needed = FlowMemory::words_for(100);
        let memory = FlowMemory::over(100, given(needed, 0)).unwrap();
        assert!(memory.records(0, memory.buckets()).all(|record| record.state().is_none()));
        for (words, skipped) in [(needed - 1, 0), (needed, 1)] {
            let error = FlowMemory::over(100, given(words, skipped)).unwrap_err();
            assert_eq!(error.needed, needed, "{words} words, {skipped} skipped");
        }
    }
}
