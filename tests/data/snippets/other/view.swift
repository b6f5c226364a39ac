import Foundation

struct Point {
    let x: Double
    var y: Double
}

func distance(from a: Point, to b: Point) -> Double {
    guard a.x != b.x else { return abs(a.y - b.y) }
    let dx = a.x - b.x
    return sqrt(dx * dx)
}
