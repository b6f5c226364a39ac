import { Injectable } from '@angular/core';
import { HttpClient } from '@angular/common/http';
import { Observable } from 'rxjs';
import { map } from 'rxjs/operators';

@Injectable({ providedIn: 'root' })
export class ProductService {
  constructor(private http: HttpClient) {}

  search(term: string): Observable<Product[]> {
    return this.http
      .get<{ items: Product[] }>('/api/products', { params: { q: term } })
      .pipe(map((r) => r.items));
  }
}
