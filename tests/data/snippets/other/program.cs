using System;
using System.Collections.Generic;

namespace Demo
{
    public class Program
    {
        public string Name { get; set; }

        static void Main(string[] args)
        {
            var list = new List<int> { 1, 2, 3 };
            foreach (var n in list)
            {
                Console.WriteLine(n);
            }
        }
    }
}
