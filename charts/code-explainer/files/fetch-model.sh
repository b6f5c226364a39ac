# Fetches the model from MODEL_URL to MODEL_FILE, unless it is there. What was fetched of it before is gone on with; where the
# server or MODEL_SHA256 says that it is no beginning of the file, it is thrown away and all is fetched.
set -eu
part=$MODEL_FILE.part

good() {
  echo "$MODEL_SHA256  $1" | sha256sum -c - >&2
}

# Sets code to curl's exit code and status to that of HTTP. Goes on after what may pass by itself.
fetch() {
  for pause in 1 2 4 8 16 0; do
    code=0
    status=$(curl --fail --silent --show-error --location --continue-at - --write-out '%{http_code}' \
      --output "$part" "$MODEL_URL") || code=$?
    case "$code $status" in
      "22 408" | "22 429") ;;
      "0 "* | "22 4"* | "33 "*) return ;;
    esac
    sleep "$pause"
  done
}

give_up() {
  echo "$MODEL_URL was not fetched (HTTP $status, curl's exit code $code): check model.url.address, and that this pod may reach it" >&2
  exit "$code"
}

mkdir -p "$(dirname "$MODEL_FILE")"
if [ -f "$MODEL_FILE" ] && good "$MODEL_FILE"; then
  exit 0
fi
# An empty one is nothing to go on with.
[ -s "$part" ] || rm -f "$part"
if [ -f "$part" ]; then
  fetch
  case "$code $status" in
    "0 "*) good "$part" || rm "$part" ;;
    # The file is shorter than what is there; or the server sends no parts.
    "22 416" | "33 "*) rm "$part" ;;
    *) give_up ;;
  esac
  [ -f "$part" ] || echo "what was fetched before is no beginning of $MODEL_URL: fetching all of it" >&2
fi
if [ ! -f "$part" ]; then
  fetch
  # It broke off, and the server sends no parts to go on with: once more from the beginning.
  if [ "$code" = 33 ]; then
    rm "$part"
    fetch
  fi
  [ "$code" = 0 ] || give_up
  if ! good "$part"; then
    rm "$part"
    echo "$MODEL_URL is not the file whose SHA-256 is $MODEL_SHA256: check model.url.address and model.url.sha256" >&2
    exit 1
  fi
fi
mv "$part" "$MODEL_FILE"
