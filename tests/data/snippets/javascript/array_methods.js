const totals = orders
  .filter(o => o.paid)
  .map(o => o.items.reduce((sum, i) => sum + i.price * i.qty, 0));
console.log(Math.max(...totals));
