from flask import Flask, jsonify, request

app = Flask(__name__)
todos = {}

@app.route("/todos/<int:todo_id>", methods=["GET", "PUT"])
def todo(todo_id):
    if request.method == "PUT":
        todos[todo_id] = request.get_json()
    if todo_id not in todos:
        return jsonify(error="not found"), 404
    return jsonify(todos[todo_id])

app.run(debug=True)
