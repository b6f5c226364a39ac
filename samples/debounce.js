/**
 * Delays calls of `fn` until `wait` milliseconds have passed without a new one.
 */
export function debounce(fn, wait = 200) {
  let timer = null;

  function debounced(...args) {
    clearTimeout(timer);
    timer = setTimeout(() => {
      timer = null;
      fn.apply(this, args);
    }, wait);
  }

  debounced.cancel = () => {
    clearTimeout(timer);
    timer = null;
  };

  return debounced;
}

const search = debounce((text) => console.log(`searching for ${text}`), 300);
document.querySelector("#search").addEventListener("input", (event) => search(event.target.value));
