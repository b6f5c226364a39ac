const button = document.querySelector("#save");
button.addEventListener("click", async (event) => {
  event.preventDefault();
  const response = await fetch("/api/save", { method: "POST" });
  console.log(response.status);
});
