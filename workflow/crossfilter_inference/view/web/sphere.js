"use strict";
// The sphere on the screen: where it is looked at from, and the photos' points, drawn by WebGL 2.
//
// Places are unit vectors: x to longitude 0 on the equator, z to the north pole. A view turns them so that x is to the right, y up and z towards the
// viewer, and draws them as a globe, or flat: Hammer's equal-area projection, scaled to 4 by 2.

const FARTHEST = 0.7; // the smallest zoom

/** Unit vectors from pairs of latitude and longitude in degrees. */
function onSphere(degrees) {
  const vectors = new Float32Array((degrees.length / 2) * 3);
  for (let i = 0; i < degrees.length / 2; i++) {
    const [latitude, longitude] = [degrees[2 * i], degrees[2 * i + 1]].map((angle) => (angle * Math.PI) / 180);
    const across = Math.cos(latitude);
    vectors.set([across * Math.cos(longitude), across * Math.sin(longitude), Math.sin(latitude)], 3 * i);
  }
  return vectors;
}

/**
 * Where the sphere is looked at from: what is in the middle (radians), how near, as a globe (0) or flat (1), and how far
 * to the left of the window's middle (CSS pixels), which leaves room at the right.
 */
class View {
  longitude = 0;
  latitude = 0;
  zoom = 1;
  flatness = 0;
  shift = 0;
  width = 1;
  height = 1;

  /** @param {number} n of photos: where there are many, one may come nearer */
  constructor(n) {
    this.nearest = Math.min(Math.max(2.5 * Math.sqrt(n), 12), 200); // the largest zoom
  }

  /** Radius of the sphere in CSS pixels. */
  get radius() {
    const room = this.width - 2 * this.shift;
    const globe = 0.44 * Math.min(room, this.height);
    const flat = Math.min((room - 80) / 4, this.height / 2.3); // with room for half a thumbnail at both ends
    return (globe + this.flatness * (flat - globe)) * this.zoom;
  }

  /** Where the middle of the sphere is, in CSS pixels. */
  get middle() {
    return [this.width / 2 - this.shift, this.height / 2];
  }

  /** The axes to the right, up and towards the viewer, one after the other. */
  camera() {
    const [sinLon, cosLon] = [Math.sin(this.longitude), Math.cos(this.longitude)];
    const [sinLat, cosLat] = [Math.sin(this.latitude), Math.cos(this.latitude)];
    return [
      ...[-sinLon, cosLon, 0],
      ...[-sinLat * cosLon, -sinLat * sinLon, cosLat],
      ...[cosLat * cosLon, cosLat * sinLon, sinLat],
    ];
  }

  /**
   * Project places to CSS pixels.
   * @param {Float32Array} places x, y, z of each
   * @param {Float32Array} [screen] takes x, y and nearness of each: at most 0 is out of sight
   */
  project(places, screen = new Float32Array(places.length)) {
    const c = this.camera();
    const [[left, top], radius, flatness] = [this.middle, this.radius, this.flatness];
    for (let i = 0; i < places.length; i += 3) {
      const [px, py, pz] = [places[i], places[i + 1], places[i + 2]];
      let x = px * c[0] + py * c[1] + pz * c[2];
      let y = px * c[3] + py * c[4] + pz * c[5];
      let near = px * c[6] + py * c[7] + pz * c[8];
      if (flatness > 0) {
        const half = Math.atan2(x, near) / 2;
        const cos = Math.sqrt(Math.max(0, 1 - y * y));
        const d = Math.sqrt(1 + cos * Math.cos(half));
        x += flatness * ((2 * cos * Math.sin(half)) / d - x);
        y += flatness * (y / d - y);
        near += flatness * (1 - near);
      }
      screen[i] = left + x * radius;
      screen[i + 1] = top - y * radius;
      screen[i + 2] = near;
    }
    return screen;
  }

  /** Turn by a movement of the pointer, in CSS pixels. */
  drag(dx, dy) {
    this.longitude -= dx / (this.radius * Math.max(Math.cos(this.latitude), 0.3));
    this.latitude += dy / this.radius;
    this.limit();
  }

  /** Come nearer by a factor; what is under the pointer, given from the middle, stays there. */
  approach(factor, x = 0, y = 0) {
    const before = this.radius;
    this.zoom = Math.min(Math.max(this.zoom * factor, FARTHEST), this.nearest);
    const share = 1 - before / this.radius;
    const reach = Math.min(1, this.radius / (Math.hypot(x, y) * 1.2 + 1)); // beside the globe there is nothing to keep
    this.drag(-x * share * reach, -y * share * reach);
  }

  limit() {
    this.latitude = Math.min(Math.max(this.latitude, -Math.PI / 2), Math.PI / 2);
    this.longitude = Math.atan2(Math.sin(this.longitude), Math.cos(this.longitude));
  }
}

const POINTS = {
  vertex: `#version 300 es
uniform mat3 camera;
uniform float flatness, size, shift;
uniform vec2 scale;
in vec3 place;
in vec4 colour;
out vec4 tint;
vec2 hammer(vec3 p) {
  float half_longitude = atan(p.x, p.z) / 2.;
  float c = sqrt(max(0., 1. - p.y * p.y));
  return vec2(2. * c * sin(half_longitude), p.y) / sqrt(1. + c * cos(half_longitude));
}
void main() {
  vec3 p = place * camera;
  float seen = mix(smoothstep(-.01, .2, p.z), 1., flatness);
  vec2 at = flatness > 0. ? mix(p.xy, hammer(p), flatness) : p.xy;
  gl_Position = seen > 0. ? vec4(at * scale - vec2(shift, 0.), 0., 1.) : vec4(2.); // out of sight
  gl_PointSize = size;
  tint = vec4(colour.rgb, seen);
}`,
  fragment: `#version 300 es
precision mediump float;
in vec4 tint;
out vec4 colour;
void main() {
  float inside = 1. - smoothstep(.36, .5, length(gl_PointCoord - .5));
  colour = vec4(tint.rgb, 1.) * tint.a * inside * .9;
}`,
};

/** Draws a point for every photo. */
class Points {
  constructor(canvas, places) {
    const gl = canvas.getContext("webgl2", { antialias: false });
    if (!gl) throw new Error("this browser has no WebGL 2");
    this.gl = gl;
    this.n = places.length / 3;
    this.program = this.compile(POINTS);
    this.attribute("place", places, 3);
    this.attribute("colour", new Uint8Array(4 * this.n), 4);
    gl.useProgram(this.program);
    gl.enable(gl.BLEND);
    gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
  }

  compile({ vertex, fragment }) {
    const gl = this.gl;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      if (!gl.getShaderParameter(shader, gl.COMPILE_STATUS)) throw new Error(gl.getShaderInfoLog(shader));
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    return program;
  }

  attribute(name, values, size) {
    const gl = this.gl;
    const isBytes = values instanceof Uint8Array;
    this[name] = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, this[name]);
    gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
    const at = gl.getAttribLocation(this.program, name);
    gl.enableVertexAttribArray(at);
    gl.vertexAttribPointer(at, size, isBytes ? gl.UNSIGNED_BYTE : gl.FLOAT, isBytes, 0, 0);
  }

  /** Colours of all points: red, green, blue, 255 of each. */
  paint(colours) {
    this.gl.bindBuffer(this.gl.ARRAY_BUFFER, this.colour);
    this.gl.bufferData(this.gl.ARRAY_BUFFER, colours, this.gl.STATIC_DRAW);
  }

  /** @param {number} size of a point in CSS pixels */
  draw(view, size) {
    const gl = this.gl;
    const uniform = (name) => gl.getUniformLocation(this.program, name);
    gl.viewport(0, 0, gl.canvas.width, gl.canvas.height);
    gl.clear(gl.COLOR_BUFFER_BIT);
    gl.uniformMatrix3fv(uniform("camera"), false, view.camera());
    gl.uniform1f(uniform("flatness"), view.flatness);
    gl.uniform1f(uniform("shift"), (2 * view.shift) / view.width);
    gl.uniform1f(uniform("size"), (size * gl.canvas.width) / view.width);
    gl.uniform2f(uniform("scale"), (2 * view.radius) / view.width, (2 * view.radius) / view.height);
    gl.drawArrays(gl.POINTS, 0, this.n);
  }
}
