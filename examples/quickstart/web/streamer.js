// The client of client/typescript. Written by its scripts/demo.mjs: change the source, not this file.
function ue(f){return new URL(f,globalThis.location?.href).href}var fe=Symbol.for("@streamer/client.error"),V=class extends Error{[fe]=!0;constructor(s,b,E={}){super(b,E),Object.assign(
this,{name:"StreamerError",code:s},E)}static is(s){return!!s?.[fe]}};var ie=262144;function ne(f,...s){try{f?.(...s)}catch(b){queueMicrotask(()=>{throw b})}}function ae(){let f,s,b=new Promise(
(E,D)=>{f=E,s=D});return b.catch(()=>{}),{y:b,d:f,u:s}}function ce(f,s,b,E,D){let{signal:P,onProgress:C,onOutput:U,onRestart:c,
onGap:Q,after:v=0}=b,l=`${++f.D}`,i=ae(),d=ae(),M=new Set,L=[],{epoch:F}=b,w=v,S=!0,_,W=0,Z,K=0,O,H=0,h={O:v,n:0},X=h,B=(e,a,p)=>new V(
e,a,{requestId:s,...p}),z=({code:e,message:a,details:p,retry_after_ms:k})=>B(e,a,{details:p,retryAfter:k}),q=()=>{for(let e of L.
splice(0))e()},te=e=>{for(let a of M)a.o=h;O=void 0,_??=e,d.u(e),i.u(e),q()},ee=e=>{S=!0,clearTimeout(Z),P?.removeEventListener(
"abort",T),f.M(n,e)},g=(e,a)=>{te(e),n.f?.u(e),ee(a)},A=async e=>{if(S)return;n.$=e;let{y:a}=n.f??=ae();f.b(),await a},N=e=>{
e?n.f?.u(z(e)):n.f?.d(),n.f=void 0},T=()=>{let{reason:e}=P,a=B("CANCELED","aborted",{cause:e});a.name=e?.name??"AbortErr\
or",te(a),!n.i||n.T?A(a.message).then(ee,()=>ee()):ee()},x=e=>{_||(e.type==="progress"?ne(C,e):e.type==="output"?ne(U,e.
data,e):e.type==="gap"?ne(Q,e):e.type==="running"&&e.attempt>1&&ne(c,e))},t=(e,a)=>{for(h=h.p={j:e,O:w,n:h.n+a+256};h.n-
X.n>(D?0:ie);)X=X.p;x(e)},r=(e,a,p)=>({type:"gap",reason:e,after:a,oldest:p,attempt:K,epoch:F}),m=()=>{n.t=n.a=!1},u=()=>{
m(),++W>3&&g(B("INTERNAL_ERROR","the server leaves out events"))},o=()=>{let e=n.w?ie/2:ie,a=[...M].some(p=>h.n-p.o.n>e);
a!==!!n.w&&(n.w=a,a?f.P(n):f.b())},y=(e,a)=>{let{type:p,seq:k,success:G,result:J=e.data}=e;w=k,W=0;let Y=e.error&&z(e.error);
if(p!=="error"){let oe={...e,type:G!==void 0?"complete":k===1?"accepted":e.status??p,epoch:F,outputsFrom:e.outputs_from??
0,delay:e.retry_after_ms??0,error:Y,result:J};t(oe,a)}(G!==void 0||p==="error")&&(N(),d.d(),_??=Y,G?i.d(J):i.u(_??B("PRO\
CESSING_FAILED","the result is not a success",{details:{result:J}})),n.t=!1,ee())},n={e:s,_:l,r:{epoch:F,after:v},A:g,m(e,a){
let{type:p,seq:k=0,attempt:G=0}=e,J=e.ref===l;if(e.ref===`-${l}`&&(n.g=!1,N(k?void 0:e.error)),!!n.t){if(p==="error"&&!k){
if(e.ref&&!J)return;let Y=z(e.error);m(),/^(SERVICE_UNAVAILABLE|RATE_LIMITED)$/.test(Y.code)?(n.R=!0,n.T=!1,Z=setTimeout(
()=>{n.R=!1,f.b()},(Y.retryAfter||500)*(1+Math.random()))):g(Y);return}if(J&&(n.i=void 0),!n.i){if((J||p==="attached"||p===
"gap")&&(n.a=!1,d.d()),e.epoch){let{epoch:Y,reason:oe="recreated",oldest:se=1}=e,ye=w,le=p==="gap";(F!==Y&&(F||le)||le&&
(se>w+1||e.last<w))&&(w=se-1,K=G,O=void 0,F=Y,t(r(oe,ye,se),0)),F=Y}if(G>K&&(K=G,O=void 0),p==="progress"){if(G<K||O&&(e.
percentage<O.percentage||JSON.stringify(e)===JSON.stringify(O)))return;O=e,H=h.n,x(e)}else p==="attached"?/[tl]ed$/.test(
e.status)&&e.last<=w&&(w=e.last-1,u()):k===w+1?y(e,a):k>w&&!n.a&&u();n.r=R.cursor={epoch:F,after:w},S||f.k.set(s,n.r),o(),
q()}}}},R=Object.assign(i.y,{id:s,accepted:d.y,cursor:n.r,cancel:A,detach:()=>g(B("CLOSED","detached")),[Symbol.asyncIterator](){
let e={o:X},a,p=!1,k=(async function*(){for(e.o.n&&(yield r("dropped",v,e.o.O+1));!p;){let J=e.o.p;if(O&&O!==a&&H<=e.o.n)
a=O,yield a;else if(J)e.o=J,o(),yield J.j;else{if(_)throw _;if(S)return;await new Promise(Y=>L.push(Y))}}})(),{return:G}=k;
return M.add(e),k.return=J=>(p=!0,M.delete(e),o(),q(),G.call(k,J)),k}});try{if(!/^(?!\.\.?$)[\w.~-]{1,128}$/.test(s))throw B(
"VALIDATION_ERROR",`id ${s}: use 1 to 128 of A-Z a-z 0-9 . _ ~ -`);E&&(n.i=JSON.stringify({type:"request",id:s,ref:l,...E})),
P?.aborted?T():(S=!1,f.U(n),S||P?.addEventListener("abort",T))}catch(e){g(V.is(e)?e:B("VALIDATION_ERROR",`payload: ${e}`,
{cause:e}),!0)}return R}var re="nothing heard in time";function de(f,s,b){let{storage:C=new Map}=s,U=new Set([s.onState]),c=new Set,Q=globalThis.document,v={},l,i,d,M=!1,L=0,F=!1,
w=0,S=0,_,W="idle,,0,",Z=!1,K,O,H=Object.assign(f,{state:{phase:"idle",transport:void 0,attempt:0,error:void 0},pending:()=>[
...C.keys()],subscribe(t){return U.add(t),()=>U.delete(t)},reconnect(){_||(L=w=S=0,q(i),q(l),z(0))},close(){_=new V("CLO\
SED","the client is closed"),clearTimeout(d),x("removeEventListener"),q(i),q(l),h("closed",_);for(let t of c)t.A(_,!0)}}),
h=(t,r,m=H.state.transport)=>{let u=t==="reconnecting"?L:0,o=`${[t,m,u,r]}`;if(W!==(W=o)){H.state={phase:t,transport:m,attempt:u,
error:r},Z!==(Z=t==="open")&&ne(Z?s.onConnect:s.onDisconnect,{error:r,reconnecting:/ing$/.test(t)});for(let y of U)ne(y,
H.state)}},X=()=>{let t=l?.c;if(!t)return;let{max_inflight:r=32,max_attached:m=64,max_message_bytes:u=1/0}=v,o=0,y=0;for(let n of c)
n.a&&o++,n.g&&o++,n.t&&y++;for(let n of c)n.f&&!n.i&&!n.g&&o<r&&(o++,n.g=!0,t.s({type:"cancel",id:n.e,ref:`-${n._}`,reason:n.$}));
for(let n of c){if(M||o>=r-(r>>2)||y>=m)return;if(n.t||n.w||n.R)continue;let{e:R,_:e,i:a=""}=n,{size:p}=new Blob([a]);p>
u?n.A(new V("PAYLOAD_TOO_LARGE",`${p} bytes, the server takes ${u}`,{requestId:R})):(o++,y++,n.t=n.a=n.T=!0,t.s({type:"a\
ttach",id:R,ref:e,...n.r},a))}},B=t=>{if(t.t){t.t=!1,l?.c?.s({type:"detach",id:t.e});for(let r of c)r.e===t.e&&(r.t=r.a=
!1)}},z=t=>{clearTimeout(d),S=t,d=setTimeout(()=>{d=void 0,c.size?(!L||!Q?.hidden)&&ee():l||h("idle")},Math.min(Math.max(
t-Date.now(),0),36e5))},q=t=>{if(t&&(t.E=!0,t.C.abort(),K=void 0,clearTimeout(t.S),t.c?.x(),t===i&&(i=void 0),t===l)){l=
void 0,M=!1;for(let r of c)r.t=r.a=r.g=!1}},te=t=>K??=Promise.resolve(t.C.signal).then(s.getToken??(()=>s.token)).finally(
()=>{K=void 0}),ee=async()=>{let t=b.p(),r={I:t,C:new AbortController},m=(...o)=>A(r,...o);i=r,l||h(L?"reconnecting":"co\
nnecting",L?O:void 0,t.h);let u=0;r.S=setTimeout(()=>m(new Error(re),u*2),1e4);try{if(r.l=await te(r)??void 0,r.E)return;
u=1,r.c=t.L({l:r.l,m:(o,y)=>g(r,o,y),q:m,F:c})}catch(o){m(o,u,/^(UNAUTHORIZED|FORBIDDEN|VALIDATION_ERROR)$/.test(o?.code)?
400:0)}},g=(t,r,m)=>{let{type:u}=r;if(u==="welcome"&&(clearTimeout(t.S),q(l),i=void 0,l=t,v=r.limits??{}),t===l){if(m&&(t.N??=
Date.now(),h("open",void 0,t.I.h)),u==="ping")t.c.s({type:"pong"});else if(u==="goaway")M=!0,z(Date.now()+r.reconnect_in_ms);else if(u===
"auth_expiring")te(t).then(o=>{!t.E&&o&&o!==t.l&&t.c.s({type:"auth",token:t.l=o})},()=>{});else for(let o of c)o.e===r.request_id&&
o.m(r,m);X()}},A=(t,r,m=0,u=0,o=0)=>{if(t.E)return;let y=t===l;q(t);let n=b.H?.(t.I,t.N,m);Date.now()-t.N>=5e3&&(L=0,F=!1),
O=r;let R=u===401,e=!n&&(R?F:/^4(?!08|25|29)/.test(`${u}`));if(F=R,y&&(i||d&&!e))return h("reconnecting",O);if(w=Date.now()+
o,S=w+Math.random()*Math.min(500*2**L++,2e4),e){let a=V.is(r)?r:new V(R?"UNAUTHORIZED":u===403?"FORBIDDEN":"SERVICE_UNAV\
AILABLE",`connection refused: ${O.message}`);q(l),h("closed",a);for(let p of c)p.A(a,!0)}else c.size?(l||h("reconnecting",
O),z(S)):(L=0,S=w,h("idle"))},N=()=>{Q?.hidden||(l&&!M?l.c.s({type:"ping"}):!i&&c.size&&z(w))},T=()=>{clearTimeout(d),d=
void 0,q(i),q(l),h(c.size?"reconnecting":"idle")},x=t=>{for(let r of["online","pageshow","visibilitychange"])globalThis[t]?.(
r,N);globalThis[t]?.("pagehide",T)};return{k:C,D:0,b:X,P:B,U(t){if(_)throw _;if(c.size>=1e3)throw new V("RATE_LIMITED","\
1000 requests are pending");c.add(t),C.get(t.e)||C.set(t.e,t.r),X(),!(l&&!M||i||d)&&(x("addEventListener"),z(S))},M(t,r){
c.delete(t),!r&&![...c].some(m=>m.e===t.e)&&C.delete(t.e),B(t),X()}}}function pe(f,s,b){let E=de(f,s,b),D=(I,$,j={},P)=>{let{id:C=crypto.getRandomValues(new Uint32Array(4)).join("-"),metadata:U,
timeout:c}=j;return ce(E,C,j,{action:I,payload:$,metadata:U,timeout_ms:c&&Math.ceil(c)},P)};Object.assign(f,{request:(I,$,j)=>D(
I,$,j,!0).then(),submit:D,attach:(I,$={})=>ce(E,I,{...$.resume&&E.k.get(I),...$})})}async function me(){let s=()=>{},b=globalThis.navigator?.locks;if(!b)return s;let E;for(let D=0;D<3&&!E;D++)E=await new Promise(
I=>{b.request(`streamer ${D}`,{ifAvailable:!0},$=>$?new Promise(I):I(void 0)).catch(()=>I(s))});return E}function ge(f,s,b){let v=0,l=b==="poll"?1/0:0,i={get h(){return Date.now()<l?"poll":"sse"},L({l:d,m:M,q:L,F}){let w=new AbortController,
{signal:S}=w,_=w,W=!1,Z=!1,K=!1,O=null,H,h=(g,A=1)=>S.aborted||M(g,A),X=()=>{H?.(),w.abort(),_.abort()},B=async(g,A,N,T,x)=>{
let t=await(s??globalThis.fetch)(f+N,{...x,headers:{...T,...d&&{authorization:`Bearer ${d}`}},signal:(A?w:_).signal}),{status:r}=t;
if(t.ok||r===304)return t;let m=await t.text();if(r<400||!(m||t.headers.has("content-length")))throw new Error("the answ\
er was cut off");let u=m[0]==="{"?JSON.parse(m):{},{code:o,detail:y="",seq:n}=u;if(o&&(A?r!==401||n:/^4(?!01|08|25|29)/.
test(`${r}`)))for(let R of g)h({type:"error",request_id:R,ref:A,seq:n,error:{...u,message:y}});else L(new Error(`${r} ${y}`),
+!o,r,u.retry_after_ms)},z=()=>new Map([...F].filter(g=>g.t&&!g.i).sort((g,A)=>A.r.after-g.r.after).map(g=>[g.e,g.r])),q=g=>[
...g].map(([A,{epoch:N="",after:T}])=>`r=${A}:${N}:${T}`).join("&"),te=async()=>{if(!K){K=!0;for(let g=25;;){await new Promise(
o=>setTimeout(o,g));let A=z(),N=q(A);if(N&&(H??=await me()),!N||S.aborted)break;let T=i.h==="poll"||!H,x=T&&!Z&&O,t=Date.
now(),r,m=_=new AbortController,u=o=>{clearTimeout(r),r=setTimeout(()=>m.abort(new Error(re)),o)};W=!!x,Z=!1,u(T?3e4:5e3);
try{let o=await B(A.keys(),void 0,`events?${N}`,{accept:T?"application/json":"text/event-stream",...x&&{"if-none-match":x,
...H&&{prefer:"wait=20"}}});if(o?.status===204)for(let[y,{epoch:n,after:R}]of A)h({type:"attached",request_id:y,epoch:n,
status:"completed",last:R});else if(o&&T){let y=await o.text(),n=y?JSON.parse(y).events:[];O=o.headers.get("etag");for(let R of n)
h(R,y.length/n.length)}else if(o){let y=new TextDecoder,n=o.body.getReader(),R="";do{let{value:e,done:a}=await n.read();
if(a)throw new Error("the answer was cut off");u(25e3),W=!0;let p=(R+y.decode(e,{stream:!0})).split(/[\r\n]+/);R=p.pop();
for(let k of p){if(!k.startsWith("data:"))continue;let G=JSON.parse(k.slice(5));G.request_id&&h(G,k.length)}}while(!Z)}}catch(o){
S.aborted||Z&&W||!z().size||(!T&&W&&Date.now()-t>5e3?v=0:!T&&!b&&(v+=W?1:m.signal.aborted?3:0)>=3?(v=0,l=Date.now()+3e5):
L(o,+!W))}clearTimeout(r),m.abort(),g=T&&(!H||q(z())===N)?500*(1+Math.random()):25}H?.(),H=void 0,K=!1}},ee=()=>{Z=!0,W&&
_.abort(),te()};return queueMicrotask(()=>h({type:"welcome"},0)),{async s({type:g,id:A="",ref:N,reason:T=""},x){if(!x&&g!==
"cancel")return ee();let t=setTimeout(L,9e4,new Error(re),1);try{let r=x?"requests":`requests/${A}?reason=${encodeURIComponent(
T)}`,u=await B([A],N,r,{"content-type":"application/json"},{method:x?"POST":"DELETE",body:x});if(u){let o=await u.text(),
y=x?JSON.parse(o):{type:"canceled"};h({...y,request_id:A,ref:N},o.length),y.epoch&&ee()}}catch(r){L(r,1)}clearTimeout(t)},
x:X}}};return i}function he(f,s){return{h:"websocket",L({l:I,m:$,q:j}){let P=s??globalThis.WebSocket;if(!P)throw new V("VALIDATION_ERROR",
"no WebSocket: give one with the option WebSocket");let C=0,U,c=new P(f.replace(/^http/,"ws"),["streamer.v1"]),Q=()=>{clearTimeout(
U),c.close()},v=i=>{clearTimeout(U),U=setTimeout(j,i,new Error(re))},l=(i,d)=>c.send(d||JSON.stringify(i));return c.onopen=
()=>l({type:"hello",v:1,token:I,caps:["batch"],client:"streamer-ts/2"}),c.onmessage=({data:i})=>{for(let d of i.split(`
`)){if(c.readyState>1)return;let M=JSON.parse(d);C||=(M.ping_interval_ms??25e3)+1e4,v(C),$(M,d.length)}},c.onclose=({code:i,
reason:d})=>{j(new Error(`WebSocket closed: ${i} ${d}`),+(i<4e3),i<4e3?/^10(0[23789]|10)$/.test(`${i}`)?400:0:i-4e3,+/ms=(\d+)/.
exec(d)?.[1]||(i>>1===506?(i-1012+Math.random())*5e3:0))},c.onerror=()=>{},{s(i,d){l(i,d),i.type==="ping"&&v(5e3)},x:Q}}}}var He=class{constructor(f,s={}){pe(this,s,be(f,s))}};function be(f,{transport:s,http:b,WebSocket:E,fetch:D}){let j=ue(f),
P=s!=="auto"&&s,C=P||/^http/.test(j)&&"sse",U=he(j,E),c=ge(new URL(b??".",j.replace(/^ws/,"http")).href.replace(/\/*$/,"\
/"),D,P),Q=0,v=0;return{p:()=>(C?C==="websocket":Date.now()>v&&(E??globalThis.WebSocket))?U:c,H(l,i,d){if(!(C||(l.V||=i)||
!d))return l===c?Q=0:Q+=d,v=Q<2?0:Date.now()+3e5,l===c}}}export{He as StreamerClient,V as StreamerError};
