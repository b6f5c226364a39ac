//! Nearest neighbours among the vectors of one scope: exact, and by a graph (HNSW) once there are many.

use std::collections::HashMap;

use usearch::{Index as Graph, IndexOptions, MetricKind, ScalarKind};

/// From so many vectors on a graph is searched: an exact search of as many costs some milliseconds.
pub const GRAPH_FROM: usize = 8192;
/// Neighbours that a graph gives for each that is wanted; the best of them by their exact scores are taken.
const OVERSAMPLING: usize = 4;
/// Links of a node, and candidates looked at while a node is added and while one is searched for.
const CONNECTIVITY: usize = 16;
const EXPANSION_ADD: usize = 128;
const EXPANSION_SEARCH: usize = 192;

/// A vector that is near.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// Its name.
    pub id: u64,
    /// The dot product with the query.
    pub score: f32,
}

/// Vectors by id. The graph only finds candidates; scores are exact.
pub struct VectorIndex {
    dimensions: usize,
    ids: Vec<u64>,
    /// Row after row, in the order of `ids`.
    vectors: Vec<f32>,
    places: HashMap<u64, usize>,
    graph: Option<Graph>,
}

/// A graph that is made beside the index, so that searches go on meanwhile.
pub struct GraphBuild {
    graph: Graph,
    ids: Vec<u64>,
}

impl VectorIndex {
    /// An empty one, of vectors of so many numbers.
    pub fn new(dimensions: usize) -> Self {
        Self {
            dimensions,
            ids: Vec::new(),
            vectors: Vec::new(),
            places: HashMap::new(),
            graph: None,
        }
    }

    /// Number of vectors.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The smallest id.
    pub fn oldest(&self) -> Option<u64> {
        self.ids.iter().copied().min()
    }

    /// A vector by its id.
    pub fn get(&self, id: u64) -> Option<&[f32]> {
        self.places.get(&id).map(|&place| self.row(place))
    }

    /// Adds a vector, in place of the one that the id had. One of another length is left out.
    pub fn insert(&mut self, id: u64, vector: &[f32]) {
        self.remove(id);
        if vector.len() != self.dimensions {
            return;
        }
        self.places.insert(id, self.ids.len());
        self.ids.push(id);
        self.vectors.extend_from_slice(vector);
        if let Some(graph) = &self.graph
            && let Err(error) = add(graph, id, vector)
        {
            tracing::warn!(
                error,
                "the graph of an index is given up; its searches are exact"
            );
            self.graph = None;
        }
    }

    /// Takes a vector out, if it is there.
    pub fn remove(&mut self, id: u64) {
        let Some(place) = self.places.remove(&id) else {
            return;
        };
        self.ids.swap_remove(place);
        let last = self.ids.len();
        let width = self.dimensions;
        if place < last {
            self.vectors
                .copy_within(last * width..(last + 1) * width, place * width);
            self.places.insert(self.ids[place], place);
        }
        self.vectors.truncate(last * width);
        if let Some(graph) = &self.graph {
            // What stays in the graph by mistake has no place here, and is passed over.
            let _ = graph.remove(id);
        }
    }

    /// The `count` nearest, the nearest first. A graph is asked once there are many vectors, and may miss a neighbour.
    pub fn search(&self, query: &[f32], count: usize) -> Vec<Neighbour> {
        let many = self.len() >= GRAPH_FROM;
        let found = self.graph.as_ref().filter(|_| many);
        let found = found.and_then(|graph| self.search_graph(graph, query, count));
        found.unwrap_or_else(|| self.search_exactly(query, count))
    }

    /// `None`: the library failed.
    fn search_graph(&self, graph: &Graph, query: &[f32], count: usize) -> Option<Vec<Neighbour>> {
        let wanted = (count * OVERSAMPLING).min(self.len());
        let found = graph.search(query, wanted).ok()?;
        let known = found.keys.into_iter().filter_map(|id| {
            let score = dot(self.get(id)?, query);
            Some(Neighbour { id, score })
        });
        Some(best(known.collect(), count))
    }

    /// The `count` nearest, the nearest first, by looking at all.
    pub fn search_exactly(&self, query: &[f32], count: usize) -> Vec<Neighbour> {
        if query.len() != self.dimensions {
            return Vec::new();
        }
        let rows = self.vectors.chunks_exact(self.dimensions.max(1));
        let scored = self.ids.iter().zip(rows).map(|(&id, row)| Neighbour {
            id,
            score: dot(row, query),
        });
        best(scored.collect(), count)
    }

    /// Whether there are enough vectors for a graph, and it is missing.
    pub fn wants_graph(&self) -> bool {
        self.graph.is_none() && self.len() >= GRAPH_FROM
    }

    /// The vectors as they are now, for [`GraphBuild::new`].
    pub fn snapshot(&self) -> (Vec<u64>, Vec<f32>) {
        (self.ids.clone(), self.vectors.clone())
    }

    /// Takes a graph that was made of a snapshot, with what has changed since.
    ///
    /// # Errors
    /// What the library says; the index goes on without.
    pub fn adopt(&mut self, build: GraphBuild) -> Result<(), String> {
        let GraphBuild { graph, ids } = build;
        let mut missing = self.places.clone();
        for id in ids {
            if missing.remove(&id).is_none() {
                graph.remove(id).map_err(|e| e.to_string())?;
            }
        }
        for place in missing.into_values() {
            add(&graph, self.ids[place], self.row(place))?;
        }
        self.graph = Some(graph);
        Ok(())
    }

    fn row(&self, place: usize) -> &[f32] {
        &self.vectors[place * self.dimensions..(place + 1) * self.dimensions]
    }
}

impl GraphBuild {
    /// Makes a graph of vectors, row after row: some tens of microseconds for each.
    ///
    /// # Errors
    /// What the library says.
    pub fn new(ids: Vec<u64>, vectors: &[f32], dimensions: usize) -> Result<Self, String> {
        let options = IndexOptions {
            dimensions,
            metric: MetricKind::IP,
            quantization: ScalarKind::F32,
            connectivity: CONNECTIVITY,
            expansion_add: EXPANSION_ADD,
            expansion_search: EXPANSION_SEARCH,
            multi: false,
        };
        let graph = Graph::new(&options).map_err(|e| e.to_string())?;
        graph.reserve(ids.len()).map_err(|e| e.to_string())?;
        for (&id, vector) in ids.iter().zip(vectors.chunks_exact(dimensions)) {
            add(&graph, id, vector)?;
        }
        Ok(Self { graph, ids })
    }
}

fn add(graph: &Graph, id: u64, vector: &[f32]) -> Result<(), String> {
    if graph.size() == graph.capacity() {
        let more = (graph.capacity() * 2).max(64);
        graph.reserve(more).map_err(|e| e.to_string())?;
    }
    graph.add(id, vector).map_err(|e| e.to_string())
}

/// The best first; of equal ones the older first, so that an answer does not depend on the order of the rows.
fn best(mut found: Vec<Neighbour>, count: usize) -> Vec<Neighbour> {
    let order = |a: &Neighbour, b: &Neighbour| b.score.total_cmp(&a.score).then(a.id.cmp(&b.id));
    if count < found.len() && count > 0 {
        found.select_nth_unstable_by(count - 1, order);
    }
    found.truncate(count);
    found.sort_unstable_by(order);
    found
}

/// In sixteen sums, which the compiler keeps in registers.
pub fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let (a_whole, a_rest) = a.as_chunks::<LANES>();
    let (b_whole, b_rest) = b.as_chunks::<LANES>();
    let mut sums = [0.0; LANES];
    for (x, y) in a_whole.iter().zip(b_whole) {
        for lane in 0..LANES {
            sums[lane] += x[lane] * y[lane];
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(x, y)| x * y).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Change {
        Insert(u64, Vec<f32>),
        Remove(u64),
    }

    fn change() -> impl Strategy<Value = Change> {
        let vector = prop::collection::vec(-1f32..1.0, 5);
        prop_oneof![
            3 => (0u64..20, vector).prop_map(|(id, v)| Change::Insert(id, v)),
            1 => (0u64..20).prop_map(Change::Remove),
        ]
    }

    fn apply(index: &mut VectorIndex, changes: Vec<Change>) {
        for change in changes {
            match change {
                Change::Insert(id, v) => index.insert(id, &v),
                Change::Remove(id) => index.remove(id),
            }
        }
    }

    /// A graph over all that is there now.
    fn with_graph(index: &mut VectorIndex) {
        let (ids, vectors) = index.snapshot();
        let build = GraphBuild::new(ids, &vectors, index.dimensions).expect("a graph");
        index.adopt(build).expect("adopted");
    }

    /// What the graph gives, whether or not there are enough vectors to ask it.
    fn by_graph(index: &VectorIndex, query: &[f32], count: usize) -> Vec<Neighbour> {
        let graph = index.graph.as_ref().expect("a graph");
        (index.search_graph(graph, query, count)).expect("no failure")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(200))]

        #[test]
        fn it_holds_what_a_map_holds_and_finds_the_nearest(
            changes in prop::collection::vec(change(), 0..60),
            query in prop::collection::vec(-1f32..1.0, 5),
            count in 0usize..25,
            graph_after in 0usize..60,
        ) {
            let mut index = VectorIndex::new(5);
            let mut model: HashMap<u64, Vec<f32>> = HashMap::new();
            for (n, change) in changes.into_iter().enumerate() {
                if n == graph_after {
                    with_graph(&mut index);
                }
                match &change {
                    Change::Insert(id, v) => model.insert(*id, v.clone()),
                    Change::Remove(id) => model.remove(id),
                };
                apply(&mut index, vec![change]);
            }
            prop_assert_eq!(index.len(), model.len());
            for (id, vector) in &model {
                prop_assert_eq!(index.get(*id), Some(vector.as_slice()));
            }
            let expected = model.iter().map(|(&id, v)| Neighbour { id, score: dot(v, &query) });
            let expected = best(expected.collect(), count);
            prop_assert_eq!(&index.search_exactly(&query, count), &expected);
            // Among so few none is missed, with a graph or without.
            prop_assert_eq!(&index.search(&query, count), &expected);
        }

        #[test]
        fn a_graph_holds_what_the_index_holds_and_scores_are_exact(
            before in prop::collection::vec(change(), 1..40),
            meanwhile in prop::collection::vec(change(), 0..40),
            after in prop::collection::vec(change(), 0..40),
            query in prop::collection::vec(-1f32..1.0, 5),
        ) {
            let mut index = VectorIndex::new(5);
            apply(&mut index, before);
            let (ids, vectors) = index.snapshot();
            let build = GraphBuild::new(ids, &vectors, 5).expect("a graph");
            apply(&mut index, meanwhile);
            index.adopt(build).expect("adopted");
            apply(&mut index, after);
            let graph = index.graph.as_ref().expect("a graph");
            prop_assert_eq!(graph.size(), index.len());
            for id in 0..20 {
                prop_assert_eq!(graph.contains(id), index.get(id).is_some());
            }
            let exact = index.search_exactly(&query, 20);
            let found = by_graph(&index, &query, 20);
            // Some may be missing; what is there is right, and in order.
            let mut rest = exact.iter();
            prop_assert!(found.iter().all(|n| rest.any(|e| e == n)), "{:?} of {:?}", found, exact);
        }
    }

    /// Vectors of unit length around some centres, as embeddings of code lie: numbers of a linear congruence, so that
    /// each run sees the same.
    fn embeddings(count: usize, seed: u64) -> Vec<Vec<f32>> {
        const WIDTH: usize = 48;
        let mut state = seed;
        let mut number = move || {
            state = (state.wrapping_mul(6_364_136_223_846_793_005))
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        let mut vector = |centre: &[f32], far: f32| {
            let v: Vec<f32> = centre.iter().map(|c| c + far * number()).collect();
            let length = dot(&v, &v).sqrt();
            v.iter().map(|x| x / length).collect::<Vec<f32>>()
        };
        let centres: Vec<_> = (0..64).map(|_| vector(&[0.0; WIDTH], 1.0)).collect();
        let around = |n: usize| vector(&centres[n % 64], 0.2);
        (0..count).map(around).collect()
    }

    #[test]
    fn a_graph_finds_nearly_all_that_is_near_however_much_has_changed() {
        const COUNT: usize = GRAPH_FROM + 200;
        let mut vectors = embeddings(2 * COUNT + 100, 1);
        let queries = vectors.split_off(2 * COUNT);
        let mut index = VectorIndex::new(vectors[0].len());
        for (id, vector) in (0..).zip(&vectors[..COUNT]) {
            index.insert(id, vector);
        }
        with_graph(&mut index);
        // As made, and when all have been replaced one after the other, a part of them under their old ids.
        for replaced in [0, COUNT] {
            for (n, vector) in vectors[COUNT..][..replaced].iter().enumerate() {
                let old = n as u64;
                index.remove(old);
                index.insert(if n % 3 == 0 { old } else { old + COUNT as u64 }, vector);
            }
            let found = queries.iter().map(|query| {
                let exact = index.search_exactly(query, 8);
                let by_graph = index.search(query, 8);
                exact.iter().filter(|n| by_graph.contains(n)).count()
            });
            let found: usize = found.sum();
            assert!(found >= 760, "{found} of 800 with {replaced} replaced");
        }
    }
}
