#!/usr/bin/env bash
# Makes tests/data again: runs each script of tests/reference with transformers and PyTorch, in an environment of their
# own (several GB). The tests need only what is checked in.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
venv=.venv-reference
requirements=tests/reference/requirements.txt
stamp=$(sha256sum "$requirements" | cut -d ' ' -f 1)

if [[ $(cat "$venv/.setup" 2>/dev/null) != "$stamp" ]]; then
    echo "installing transformers and PyTorch into $venv (several GB)"
    "${PYTHON:-python3}" -m venv --clear "$venv"
    "$venv/bin/pip" install --disable-pip-version-check -r "$requirements"
    echo "$stamp" >"$venv/.setup"
fi

model=${CODE_EXPLAINER_MODEL:-models/SmolLM2-135M-Instruct.Q4_1.gguf}
for script in tests/reference/*.py; do
    case $script in
        */snippets.py) continue ;; # what the others import
        */tokenizer.py) arguments=("$model") ;;
        */parity.py) arguments=(--model "$model") ;;
        *) arguments=() ;;
    esac
    echo "running $script"
    "$venv/bin/python" "$script" "${arguments[@]}"
done
git status --short tests/data || true
