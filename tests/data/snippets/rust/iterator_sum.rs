let total: u32 = values.iter().filter(|v| **v > 0).map(|v| v * 2).sum();
let names: Vec<_> = people.into_iter().map(|p| p.name).collect();
