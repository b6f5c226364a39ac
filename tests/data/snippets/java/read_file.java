import java.io.BufferedReader;
import java.io.FileReader;
import java.io.IOException;

class LineCounter {
    static int count(String path) throws IOException {
        int lines = 0;
        try (BufferedReader reader = new BufferedReader(new FileReader(path))) {
            while (reader.readLine() != null) {
                lines++;
            }
        }
        return lines;
    }
}
