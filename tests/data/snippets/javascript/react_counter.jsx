import React, { useState } from "react";

export default function Counter({ start = 0 }) {
  const [count, setCount] = useState(start);
  return (
    <div className="counter">
      <p>You clicked {count} times</p>
      <button onClick={() => setCount(count + 1)}>Click me</button>
    </div>
  );
}
