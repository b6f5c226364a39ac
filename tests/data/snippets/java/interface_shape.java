interface Shape {
    double area();

    default String describe() {
        return String.format("area %.2f", area());
    }
}

record Circle(double radius) implements Shape {
    public double area() {
        return Math.PI * radius * radius;
    }
}
