fetch(url)
  .then((r) => {
    if (!r.ok) throw new Error(`HTTP ${r.status}`);
    return r.json();
  })
  .then((data) => render(data))
  .catch((err) => console.error(err));
