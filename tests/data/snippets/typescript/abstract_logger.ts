abstract class Logger {
  constructor(protected readonly name: string) {}
  abstract write(line: string): void;

  info(message: string): void {
    this.write(`[${this.name}] ${message}`);
  }
}

class ConsoleLogger extends Logger {
  write(line: string): void {
    console.log(line);
  }
}
