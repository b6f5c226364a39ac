<?php
function greet(string $name): string {
    return "Hello, " . htmlspecialchars($name);
}

foreach ($users as $user) {
    echo greet($user['name']);
}
