data class Point(val x: Int, val y: Int)

fun main() {
    val points = listOf(Point(1, 2), Point(3, 4))
    for (p in points) {
        println("x=${p.x}")
    }
    val total = points.sumOf { it.x }
}
